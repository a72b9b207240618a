"""The nets used alone, as classifiers of their own."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback

from proportion_ssl import HeadClassifier, MobileNetV2Classifier, PatchEmbedder
from proportion_ssl.embedding.mobilenet import load_mobilenet_v2


@pytest.fixture(scope="module")
def images():
    """Dark and bright patches that any features tell apart."""
    rng = np.random.default_rng(0)
    names = np.array(["solid", "acinar"] * 8)
    shade = np.where(names == "solid", 60, 190)[:, None, None, None]
    pixels = np.clip(shade + rng.normal(0, 30, (16, 32, 32, 3)), 0, 255).astype(np.uint8)
    return pixels, names


def seeded_fit(net, X, y):
    torch.manual_seed(0)
    return net.fit(X, y)


def small(**settings):
    return MobileNetV2Classifier(
        **{"weights": None, "max_epochs": 60, "random_state": 0, **settings}
    )


def test_it_is_a_skorch_classifier_with_the_settings_of_the_paper():
    net = MobileNetV2Classifier()
    assert isinstance(net, NeuralNetClassifier)
    assert (net.dropout, net.optimizer, net.patience, net.freeze) == (
        0.2,
        torch.optim.RAdam,
        10,
        True,
    )


@pytest.mark.slow
def test_string_labels_come_back(images):
    pixels, names = images
    net = seeded_fit(small(), pixels, names)
    assert_array_equal(net.classes_, ["acinar", "solid"])
    assert_array_equal(net.predict(pixels), names)
    probabilities = net.predict_proba(pixels)
    assert_array_equal(net.classes_[probabilities.argmax(axis=1)], names)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_same_seed_same_net(images):
    one, other = (seeded_fit(small(max_epochs=2), *images) for _ in range(2))
    assert_array_equal(one.predict_proba(images[0]), other.predict_proba(images[0]))


@pytest.mark.parametrize("freeze", [True, False])
def test_clone_is_unfitted_and_fits_to_the_same(images, freeze):
    net = seeded_fit(small(max_epochs=1, freeze=freeze, dropout=0.4), *images)
    copy = clone(net)
    assert copy.get_params()["dropout"] == 0.4
    assert not hasattr(copy, "module_")
    seeded_fit(copy, *images)
    assert_array_equal(copy.predict_proba(images[0]), net.predict_proba(images[0]))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_it_survives_the_disk(images, how, tmp_path):
    net = seeded_fit(small(max_epochs=2), *images)
    if how == "pickle":
        again = pickle.loads(pickle.dumps(net))
    else:
        joblib.dump(net, tmp_path / "net.joblib")
        again = joblib.load(tmp_path / "net.joblib")
    assert_array_equal(again.predict_proba(images[0]), net.predict_proba(images[0]))


@pytest.mark.slow
def test_weights_of_a_file_are_those_it_uses(images, tmp_path):
    path = tmp_path / "weights.pth"
    backbone = load_mobilenet_v2(None, seed=5)
    torch.save(backbone.state_dict(), path)
    net = seeded_fit(small(weights=path, max_epochs=1), *images)
    first = "features.0.0.weight"
    assert_array_equal(
        dict(net.module_.backbone.named_parameters())[first].detach(), backbone.state_dict()[first]
    )
    assert_array_equal(net.embed(images[0]), PatchEmbedder(weights=path).transform(images[0]))


def test_frozen_convolutions_and_batch_statistics_stay(images):
    net = seeded_fit(small(max_epochs=2), *images)
    start = load_mobilenet_v2(None).state_dict()
    trained = net.module_.backbone.state_dict()
    for name, value in trained.items():
        assert_array_equal(value, start[name], err_msg=name)


def test_fine_tuning_moves_them(images):
    net = seeded_fit(small(max_epochs=1, freeze=False), *images)
    start = load_mobilenet_v2(None).state_dict()
    trained = net.module_.backbone.state_dict()
    moved = [name for name, value in trained.items() if (value != start[name]).any()]
    assert any("weight" in name for name in moved)
    assert any("running_mean" in name for name in moved)


@pytest.mark.slow
def test_features_in_place_of_images(images):
    pixels, names = images
    features = PatchEmbedder(weights=None).transform(pixels)
    on_images, on_features = (seeded_fit(small(max_epochs=3), X, names) for X in (pixels, features))
    assert_array_equal(on_images.predict_proba(pixels), on_features.predict_proba(features))


@pytest.mark.slow
def test_it_cross_validates(images):
    pixels, names = images
    torch.manual_seed(0)
    assert cross_val_score(small(), pixels, names, cv=2).mean() > 0.8


def test_groups_keep_slides_together():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6)).astype(np.float32), np.array([0, 1] * 20)
    slides = np.repeat(np.arange(8), 5)
    one = seeded_fit(HeadClassifier(max_epochs=3, random_state=0), X, y)
    torch.manual_seed(0)
    other = HeadClassifier(max_epochs=3, random_state=0).fit(X, y, groups=slides)
    assert (one.predict_proba(X) != other.predict_proba(X)).any()


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (np.zeros((4, 32, 32, 3), np.uint8), [0, 1], ValueError, "4 instances but y has 2"),
        (np.zeros((2, 32, 32, 3), np.float32), [0, 1], TypeError, "uint8"),
        (np.zeros((2, 32, 32, 4), np.uint8), [0, 1], ValueError, "3"),
        (np.zeros((2, 8, 8, 3), np.uint8), [0, 1], ValueError, "32"),
        (np.zeros((2, 32, 32, 3), np.uint8), [0.5, 1.2], ValueError, "continuous"),
    ],
)
def test_bad_input(X, y, error, message):
    with pytest.raises(error, match=message):
        small().fit(X, y)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_a_head_trains_on_one_thread_and_convolutions_on_all(images, freeze):
    seen = {True: set(), False: set()}

    class Watch(Callback):
        def on_batch_begin(self, net, training, **kwargs):
            seen[training].add(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        net = MobileNetV2Classifier(
            weights=None, freeze=freeze, max_epochs=1, batch_size=8, callbacks=[Watch()]
        )
        net.fit(*images)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == {True: {1} if freeze else {3}, False: {3}}
