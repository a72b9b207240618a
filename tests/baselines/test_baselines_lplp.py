"""Proportions among tumor classes, and whether a bag holds tumor."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of
from numpy.testing import assert_array_equal

from proportion_ssl import Bags
from proportion_ssl.baselines import LPLPClassifier, ProportionLossClassifier
from proportion_ssl.baselines.lplp import PartialProportionLoss, shares_among
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import OrderRecord, PartialRecord

TUMOR = torch.tensor([True, True, False])
BAG = np.repeat([0, 1, 2], [5, 7, 4])
#: The last bag holds no tumor.
SHARES = np.array([[0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [0.0, 0.0, 1.0]])


def random_batch(seed=0, shares=SHARES, **settings):
    logits = torch.tensor(np.random.default_rng(seed).normal(0, 2, (16, 3)))
    return batch_of(logits, BAG, shares, **settings)


def test_against_a_loop_of_the_paper():
    batch = random_batch(weights=[1.0, 0.5, 2.0])
    f = batch.X.softmax(dim=1).numpy()
    score, subtypes = f[:, :2].sum(axis=1), f[:, :2] / f[:, :2].sum(axis=1, keepdims=True)
    expected = 0.0
    for bag, weight in enumerate([1.0, 0.5, 2.0]):
        s, q = score[bag == BAG], subtypes[bag == BAG]
        if bag == 2:
            expected += weight * 0.3 * -np.log(1 - s.mean())
            continue
        predicted = (s[:, None] * q).sum(axis=0) / s.sum()
        recorded = SHARES[bag, :2] / SHARES[bag, :2].sum()
        proportions = (recorded * np.log(recorded / predicted)).sum()
        expected += weight * (proportions + 0.3 * -np.log(s.mean()))
    found = PartialProportionLoss(0.3, TUMOR)(PassThrough(), batch).item()
    assert found == pytest.approx(expected / 3)


def test_all_tumor_gives_the_proportion_loss():
    """A score of 1 everywhere: the tumor classes alone are predicted and recorded."""
    logits = torch.randn(16, 3, dtype=torch.float64)
    logits[:, 2] = -1e4
    shares = SHARES[:, :2].copy()
    shares[2] = 0.5
    shares = np.column_stack([shares / shares.sum(axis=1, keepdims=True), np.zeros(3)])
    batch = replace(random_batch(shares=shares), X=logits)
    found = PartialProportionLoss(0.5, TUMOR)(PassThrough(), batch)
    torch.testing.assert_close(found, MeanProportionLoss()(PassThrough(), batch))


def test_the_share_of_tumor_does_not_matter_unless_it_is_zero():
    other = SHARES.copy()
    other[:2, :2] /= 2
    other[:2, 2] = 1 - other[:2, :2].sum(axis=1)
    loss = PartialProportionLoss(0.3, TUMOR)
    torch.testing.assert_close(
        loss(PassThrough(), random_batch()), loss(PassThrough(), random_batch(shares=other))
    )


def test_partial_records_are_the_same_as_complete_ones_of_which_a_part_is_used():
    shares = SHARES[:2].copy()
    shares[:, 2] = 0
    shares /= shares.sum(axis=1, keepdims=True)
    shares = np.concatenate([shares, [[0.0, 0.0, 1.0]]])
    among = np.array([[True, True, False], [True, True, False], [True, True, True]])
    partial = replace(random_batch(), record=PartialRecord(shares, shares, shares, among))
    complete = random_batch()
    given = PartialProportionLoss(0.3)(PassThrough(), partial)
    cut = PartialProportionLoss(0.3, TUMOR)(PassThrough(), complete)
    # the complete record of the bag without tumor has its proportion loss, -log(1 - s), at full weight
    rest = complete.bag_means(complete.X.softmax(dim=1))[2, 2]
    torch.testing.assert_close(given, cut - 0.7 * rest.log() / 3)


def test_without_partial_records_it_is_the_proportion_loss():
    for record in (None, OrderRecord(np.array([[1, 2, 2]] * 3))):
        batch = replace(random_batch(), record=record)
        found = PartialProportionLoss(0.3)(PassThrough(), batch)
        torch.testing.assert_close(found, MeanProportionLoss()(PassThrough(), batch))
    with pytest.raises(
        ValueError, match="tumor_classes of LPLPClassifier needs the share of every"
    ):
        PartialProportionLoss(0.3, TUMOR)(PassThrough(), batch)


def test_intervals_among_the_tumor_classes_hold_what_intervals_of_all_allow():
    rng = np.random.default_rng(0)
    lower = torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.0, 0.5], [0.0, 0.3, 0.2], [0.0, 0.0, 1.0]])
    upper = torch.tensor([[0.3, 0.5, 0.7], [0.2, 0.0, 0.9], [0.4, 0.5, 0.6], [0.0, 0.0, 1.0]])
    smallest, largest = shares_among(lower, upper, TUMOR)
    np.testing.assert_allclose(smallest[1], [1, 0, 0])
    assert (smallest[3] == 0).all() and (largest[3] == 0).all()
    for bag in (0, 2):
        a, b = rng.uniform(lower[bag, :2, None], upper[bag, :2, None], (2, 20000))
        share = a / (a + b)
        assert share.min() >= smallest[bag, 0] and share.max() <= largest[bag, 0]
        assert share.min() == pytest.approx(smallest[bag, 0].item(), abs=0.02)
        assert share.max() == pytest.approx(largest[bag, 0].item(), abs=0.02)
        torch.testing.assert_close(smallest[bag, 0], 1 - largest[bag, 1])


def test_a_bag_that_may_hold_tumor_or_none_has_no_say_in_it():
    batch = random_batch()
    upper = batch.upper.clone()
    upper[2, 0] = 0.05
    wide = replace(batch, upper=upper)
    losses = [PartialProportionLoss(w, TUMOR)(PassThrough(), wide) for w in (0.0, 1.0)]
    means = batch.bag_means(batch.X.softmax(dim=1))
    expected = -means[:2, :2].sum(dim=1).log().sum() / 3
    torch.testing.assert_close(losses[1] - losses[0], expected)


def test_saturated_logits_have_finite_loss_and_gradient():
    for sign in (1, -1):
        logits = (torch.tensor([[1.0, 1.0, -1.0]]) * sign * 500).repeat(16, 1).requires_grad_()
        loss = PartialProportionLoss(0.3, TUMOR)(PassThrough(), replace(random_batch(), X=logits))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_a_fit_with_names_and_what_cannot_be_tumor_classes():
    data = make_bags(n_bags=6, random_state=0)
    names = np.array(["acinar", "lepidic", "normal", "solid"])
    tumor = ["acinar", "lepidic", "solid"]
    settings = {"classes": names, "max_epochs": 2, "random_state": 0}
    clf = LPLPClassifier(tumor_classes=tumor, **settings).fit(
        data.X_labeled, names[data.y], data.bags
    )
    other = ProportionLossClassifier(**settings).fit(data.X_labeled, names[data.y], data.bags)
    assert not np.array_equal(clf.predict_proba(data.X_test), other.predict_proba(data.X_test))
    for wrong in (["acinar", "tumor"], names, []):
        with pytest.raises(ValueError, match="must be some, but not all, of the classes"):
            clf.set_params(tumor_classes=wrong).fit(data.X_labeled, names[data.y], data.bags)


@pytest.mark.slow
def test_partial_bags_help():
    data = make_bags(24, class_separation=1.1, slide_shift=1.3, n_labeled_slides=3, random_state=0)
    shares = data.bags.proportions
    has_tumor = shares[:, :3].sum(axis=1) > 0
    bags, shares = data.bags.select(data.bags.names[has_tumor]), shares[has_tumor]
    among = shares[:, :3] / shares[:, :3].sum(axis=1, keepdims=True)
    partial = Bags(bags.X, bags.index, among, among=[0, 1, 2])
    scores = []
    for tumor, each in ((None, None), (None, partial), ([0, 1, 2], bags)):
        clf = LPLPClassifier(tumor_classes=tumor, max_epochs=15, random_state=0)
        scores.append(clf.fit(data.X_labeled, data.y, each).score(data.X_test, data.y_test))
    assert min(scores[1:]) > scores[0] + 0.1
    assert_array_equal(clf.classes_, np.arange(4))
