"""Noisy Student: labels of a quiet teacher, noise for its students, and self-training without it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone

from proportion_ssl import Bags, HeadClassifier, MobileNetV2Classifier, load, save
from proportion_ssl.baselines import NoisyStudentClassifier
from proportion_ssl.baselines.noisy_student import NoisyDataset, teacher_labels
from proportion_ssl.datasets import make_bags
from proportion_ssl.nets.content_order import content_order
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import train_until_settled, training_rows

DATA = make_bags(n_bags=6, bag_size=(5, 30), n_features=8, class_separation=1.0, random_state=0)


def fitted(bags=DATA.bags, **settings):
    settings = {"max_epochs": 5, "random_state": 0, **settings}
    return NoisyStudentClassifier(**settings).fit(DATA.X_labeled, DATA.y, bags)


def test_labels_of_the_teacher_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]])
    expected = p.copy()
    expected[1] = 0
    np.testing.assert_allclose(teacher_labels(p, 0.5, True), expected, rtol=1e-6)
    assert_array_equal(teacher_labels(p, 0.5, False), [[1, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_labels_of_the_teacher_are_without_noise(monkeypatch):
    """Dropout of 0.5 in the net: the labels of the first round are still its predictions in evaluation."""
    given = []

    def spy(probabilities, threshold, soft):
        given.append(probabilities)
        return teacher_labels(probabilities, threshold, soft)

    monkeypatch.setattr("proportion_ssl.baselines.noisy_student.teacher_labels", spy)
    net = HeadClassifier(dropout=0.5)
    fitted(estimator=net, n_rounds=2)
    teacher = fitted(estimator=net, bags=None)
    assert_array_equal(given[0], teacher.predict_proba(DATA.bags.X))
    assert len(given) == 2 and not np.array_equal(given[0], given[1])


def test_students_see_noise_and_only_labeled_instances():
    X = np.tile(np.arange(4, dtype=np.float32), (3000, 1))
    data = NoisyDataset(
        X, np.eye(4)[np.zeros(3000, int)], None, torch.tensor([1.0, 2, 3, 0]), 0.5, 0
    )
    seen, labels = data.__getitems__(range(3000))
    torch.testing.assert_close(seen.std(dim=0), torch.tensor([0.5, 1, 1.5, 0]), rtol=0.1, atol=1e-6)
    assert (labels[:, 0] == 1).all()
    again, _ = data.__getitems__(range(3000))
    assert not torch.equal(seen, again)


def test_without_noise_it_is_self_training(monkeypatch):
    """A loop by hand: predict, label, train a new net on labeled patches and labels, in turn."""
    settings = {"noise": 0.0, "drop": 0.0, "n_rounds": 2, "soft": False, "threshold": 0.6}
    net = HeadClassifier(dropout=0.0)
    clf = fitted(estimator=net, validation_fraction=0.0, oversample=False, **settings)

    def by_hand(self, net, X, codes, bags, groups, random_state):
        labels, parts, order = np.eye(4, dtype=np.float32)[codes], X, np.arange(len(X))
        for nth in range(3):
            rows = training_rows(labels, random_state, balance=False, order=order)
            data = SignedDataset(parts, labels, rows)
            if nth:  # draws what noise of 0 draws
                data = NoisyDataset(parts, labels, rows, torch.ones(8), 0.0, 0.0)
            self._initialize(net, X, np.arange(len(X)))
            train_until_settled(net, data, None, max_epochs=5, patience=1)
            p = net.predict_proba(SignedDataset(bags.X))
            new = np.eye(4)[p.argmax(axis=1)] * (p.max(axis=1) >= 0.6)[:, np.newaxis]
            labels = np.concatenate([labels[: len(X)], new.astype(np.float32)])
            parts = [X, bags.X]
            of_bags = len(X) + content_order(bags.X, bags.index)
            order = np.concatenate([np.arange(len(X)), of_bags])

    monkeypatch.setattr(NoisyStudentClassifier, "_fit_net", by_hand)
    other = fitted(estimator=net)
    np.testing.assert_allclose(
        clf.predict_proba(DATA.X_test), other.predict_proba(DATA.X_test), atol=1e-5
    )


def test_history_counts_labels_and_a_threshold_of_one_leaves_the_labeled_patches():
    clf = fitted(n_rounds=2, threshold=0.0)
    assert [row["n_labels"] for row in clf.history_] == [DATA.bags.n_instances] * 2
    assert all(1 <= row["n_epochs"] <= 5 for row in clf.history_)
    none = fitted(n_rounds=1, threshold=1.0, noise=0.0, drop=0.0)
    assert none.history_[0]["n_labels"] == 0


def test_bags_without_weight_give_no_labels():
    mute = Bags(DATA.bags.X, DATA.bags.index, DATA.bags.proportions, weights=np.zeros(6))
    assert fitted(bags=mute, n_rounds=1).history_[0]["n_labels"] == 0


def test_seeds_files_and_order_of_instances(tmp_path):
    first, second, other = (fitted(n_rounds=1, random_state=seed) for seed in (1, 1, 2))
    probabilities = first.predict_proba(DATA.X_test)
    assert_array_equal(probabilities, second.predict_proba(DATA.X_test))
    assert not np.array_equal(probabilities, other.predict_proba(DATA.X_test))
    save(first, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.history_ == first.history_
    assert_array_equal(again.predict_proba(DATA.X_test), probabilities)
    order = np.random.default_rng(0).permutation(DATA.bags.n_instances)
    shuffled = Bags(DATA.bags.X[order], DATA.bags.index[order], DATA.bags.proportions)
    mixed = fitted(bags=shuffled, n_rounds=1, random_state=1).predict_proba(DATA.X_test)
    np.testing.assert_allclose(mixed, probabilities, atol=1e-5)


@pytest.mark.slow
def test_images():
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    bags = Bags(images[:6], np.repeat([0, 1], 3), [[0.5, 0.5], [1, 0]])
    net = MobileNetV2Classifier(weights=None, freeze=False)
    clf = clone(NoisyStudentClassifier(net, n_rounds=1, max_epochs=1, random_state=0))
    assert clf.fit(images, [0, 1] * 4, bags).predict_proba(images).shape == (8, 2)
