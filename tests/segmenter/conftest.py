"""A fitted segmenter of a tiny cohort, shared by the tests of this folder."""

import pytest
from cohorts import SETTINGS, Texture, write_cohort

from proportion_ssl import HeadClassifier, MultiFieldOfViewNet, SlideSegmenter, TumorProposer


def make_segmenter(**settings):
    """Not fitted; with a proposer that takes a second."""
    net = MultiFieldOfViewNet(2, expert=HeadClassifier(max_epochs=40), random_state=0)
    proposer = TumorProposer(net, n_folds=2)
    return SlideSegmenter(
        **{"embedder": Texture(), "random_state": 0, "proposer": proposer, **SETTINGS, **settings}
    )


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def new():
    return make_segmenter


@pytest.fixture(scope="session")
def fitted(manifest, features):
    return make_segmenter().fit(manifest, features=features)
