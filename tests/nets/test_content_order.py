"""The order in which the instances of a bag are given changes nothing."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from proportion_ssl import (
    Bags,
    MobileNetV2Classifier,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
)
from proportion_ssl.baselines import (
    AssignmentClassifier,
    FixMatchClassifier,
    ICTClassifier,
    LLPGANClassifier,
    LLPVATClassifier,
    MeanTeacherClassifier,
    MixBag,
    MixMatchClassifier,
    ProportionLossClassifier,
    ProportionSVMClassifier,
    SoftMatchClassifier,
    VATClassifier,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.heads import _projection
from proportion_ssl.nets import content_order as module
from proportion_ssl.nets.content_order import content_order

DATA = make_bags(n_bags=8, bag_size=(10, 30), class_separation=0.7, random_state=0)
SYSTEMS = [
    NegativePseudoLabelClassifier(max_epochs=6, epoch_size=64),
    NegativePseudoLabelClassifier(max_epochs=4, refit=False),
    RobustProportionClassifier(),
    AssignmentClassifier(max_epochs=3, instances_per_bag=8),
    FixMatchClassifier(max_epochs=3),
    ICTClassifier(max_epochs=3),
    LLPGANClassifier(max_epochs=3),
    LLPVATClassifier(max_epochs=3),
    MeanTeacherClassifier(max_epochs=3),
    MixMatchClassifier(max_epochs=3),
    ProportionLossClassifier(augmentation=MixBag(), max_epochs=3),
    ProportionSVMClassifier(n_init=2),
    SoftMatchClassifier(max_epochs=3),
    VATClassifier(max_epochs=3),
]


def permuted(bags, seed):
    """The same bags, all instances in another order; and that order."""
    order = np.random.default_rng(seed).permutation(bags.n_instances)
    return Bags(bags.X[order], bags.names[bags.index][order], bags.proportions), order


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: type(system).__name__)
def test_instances_of_bags_in_another_order(system, seed):
    bags, order = permuted(DATA.bags, seed)
    one, other = (
        clone(system).set_params(random_state=0).fit(DATA.X_labeled, DATA.y, each)
        for each in (DATA.bags, bags)
    )
    if hasattr(system, "predict_proba"):
        expected = one.predict_proba(DATA.X_test)
        assert_allclose(other.predict_proba(DATA.X_test), expected, rtol=0, atol=1e-4)
    assert_array_equal(other.predict(bags.X), one.predict(DATA.bags.X)[order])
    if hasattr(one, "signed_labels_"):
        assert_array_equal(other.signed_labels_, one.signed_labels_[order])


def test_instances_that_give_the_components_are_chosen_by_their_values(monkeypatch):
    monkeypatch.setattr(_projection, "N_SAMPLE", 100)
    bags, order = permuted(DATA.bags, 3)
    one, other = (
        RobustProportionClassifier(random_state=1).fit(DATA.X_labeled, DATA.y, each)
        for each in (DATA.bags, bags)
    )
    expected = one.predict_proba(DATA.X_test)
    assert_allclose(other.predict_proba(DATA.X_test), expected, rtol=0, atol=1e-4)
    assert_array_equal(other.signed_labels_, one.signed_labels_[order])


@pytest.mark.slow
def test_images():
    images = np.random.default_rng(0).integers(0, 64, (16, 32, 32, 3), dtype=np.uint8)
    images += np.arange(0, 192, 12, dtype=np.uint8)[
        :, None, None, None
    ]  # no ties: each has its brightness
    bags = Bags(images[8:], np.repeat(["a", "b"], 4), [[0.5, 0.5], [0.25, 0.75]])
    other, _ = permuted(bags, 0)
    found = [
        NegativePseudoLabelClassifier(
            MobileNetV2Classifier(weights=None, freeze=False), max_epochs=1, random_state=0
        )
        .fit(images[:8], [0, 1] * 4, each)
        .predict_proba(images)
        for each in (bags, other)
    ]
    assert_allclose(found[0], found[1], rtol=0, atol=1e-4)


def test_bag_by_bag_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    X, index = rng.integers(0, 3, (50, 2)).astype(np.float32), rng.integers(0, 4, 50)
    order = content_order(X, index)
    assert_array_equal(np.sort(order), np.arange(50))
    assert_array_equal(index[order], np.sort(index))
    monkeypatch.setattr(module, "BLOCK", 7)
    assert_array_equal(content_order(X, index), order)
    again = rng.permutation(50)
    assert_array_equal(X[again][content_order(X[again], index[again])], X[order])
