"""mixup."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from proportion_ssl.baselines import MixupClassifier, ProportionLossClassifier
from proportion_ssl.baselines.mixup import MixedDataset
from proportion_ssl.datasets import make_bags
from proportion_ssl.losses import PositiveLoss

DATA = make_bags(n_bags=5, random_state=0)


class Dictated(np.random.RandomState):
    """Shares are a constant, and every instance meets the next one."""

    share = 0.5

    def beta(self, a, b, size=None):
        return self.share

    def permutation(self, x):
        return np.roll(np.arange(x), -1) if isinstance(x, int) else super().permutation(x)


def mixed(share, positions=(0, 2, 3)):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    state = Dictated(0)
    state.share = share
    return X, MixedDataset(X, np.eye(4, dtype=np.int8), None, 0.2, state).__getitems__(positions)


def test_half_and_half_by_hand():
    X, (instances, labels) = mixed(0.5)
    expected = [(X[0] + X[2]) / 2, (X[2] + X[3]) / 2, (X[3] + X[0]) / 2]
    torch.testing.assert_close(instances, torch.tensor(np.array(expected)))
    assert labels.tolist() == [[0.5, 0, 0.5, 0], [0, 0, 0.5, 0.5], [0.5, 0, 0, 0.5]]


def test_share_is_that_of_the_instance_itself_in_both():
    X, (instances, labels) = mixed(0.9)
    torch.testing.assert_close(instances[0], torch.tensor(0.9 * X[0] + 0.1 * X[2]))
    torch.testing.assert_close(labels[0], torch.tensor([0.9, 0, 0.1, 0]))


@pytest.mark.parametrize("alpha", [0.01, 0.2, 5.0])
def test_mixed_labels_sum_to_one_and_shares_vary(alpha):
    codes = np.random.default_rng(0).integers(0, 3, 40)
    data = MixedDataset(
        np.eye(3, dtype=np.float32)[codes], np.eye(3)[codes], None, alpha, np.random.RandomState(0)
    )
    largest = []
    for _ in range(50):
        X, signed = data.__getitems__(range(40))
        torch.testing.assert_close(signed.sum(dim=1), torch.ones(40))
        torch.testing.assert_close(X, signed)
        assert (signed >= 0).all()
        largest.append(signed.max(dim=1).values.min().item())
    assert len({round(value, 6) for value in largest}) > (2 if alpha < 0.1 else 40)
    assert (np.mean(largest) > 0.95) == (alpha == 0.01)


def test_loss_of_a_mix_is_the_mix_of_the_losses():
    _, (_, labels) = mixed(0.3)
    logits = torch.randn(3, 4)
    target, other = torch.tensor([0, 2, 3]), torch.tensor([2, 3, 0])
    expected = 0.3 * torch.nn.functional.cross_entropy(logits, target)
    expected += 0.7 * torch.nn.functional.cross_entropy(logits, other)
    torch.testing.assert_close(PositiveLoss()(logits, labels), expected)


def test_share_of_one_is_plain_training_bit_for_bit():
    state = Dictated(0)
    state.share = 1.0
    settings = {"max_epochs": 5}
    clf = MixupClassifier(random_state=state, **settings).fit(DATA.X_labeled, DATA.y)
    plain = ProportionLossClassifier(random_state=Dictated(0), **settings)
    plain.fit(DATA.X_labeled, DATA.y)
    assert_array_equal(clf.predict_proba(DATA.X_test), plain.predict_proba(DATA.X_test))
    assert clf.estimator_.history[:, "train_loss"] == plain.estimator_.history[:, "train_loss"]
    other = MixupClassifier(random_state=Dictated(0), **settings).fit(DATA.X_labeled, DATA.y)
    assert not np.array_equal(other.predict_proba(DATA.X_test), clf.predict_proba(DATA.X_test))


def test_validation_patches_are_not_mixed(monkeypatch):
    seen = []
    original = MixedDataset.__getitems__
    monkeypatch.setattr(
        MixedDataset, "__getitems__", lambda self, p: seen.append(len(p)) or original(self, p)
    )
    clf = MixupClassifier(max_epochs=2, oversample=False, random_state=0, validation_fraction=0.5)
    clf.fit(DATA.X_labeled, DATA.y)
    n_validation = sum(int(0.5 * count) for count in np.bincount(DATA.y))
    assert sum(seen) == 2 * (len(DATA.y) - n_validation)


def test_bags_are_checked_but_not_used():
    with_bags = MixupClassifier(max_epochs=3, random_state=0)
    with_bags.fit(DATA.X_labeled, DATA.y, DATA.bags)
    without = MixupClassifier(max_epochs=3, random_state=0).fit(DATA.X_labeled, DATA.y)
    assert_array_equal(with_bags.predict_proba(DATA.X_test), without.predict_proba(DATA.X_test))
    with pytest.raises(ValueError, match=r"sum to 0\.44"):
        without.fit(DATA.X_labeled, DATA.y, DATA.bags, DATA.bags.proportions[:, :2])
