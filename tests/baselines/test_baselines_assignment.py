"""Labels of a batch of bags that fit the recorded counts."""

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of

from proportion_ssl.baselines import AssignmentClassifier
from proportion_ssl.baselines.assignment_classifier import AssignmentLoss
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.datasets import make_bags
from proportion_ssl.pseudo_labels.exact_assignment import largest_remainder


def bags(seed, sizes=(7, 1, 20), n_classes=4, dtype=torch.float32, **settings):
    rng = np.random.default_rng(seed)
    bag = np.repeat(np.arange(len(sizes)), sizes)
    recorded = rng.dirichlet(np.ones(n_classes), len(sizes))
    recorded[:, 1] = 0
    recorded /= recorded.sum(axis=1, keepdims=True)
    X = torch.tensor(rng.normal(0, 2, (len(bag), n_classes)), dtype=dtype)
    return batch_of(X, bag, recorded, **settings)


@pytest.mark.parametrize("seed", range(5))
def test_labels_fit_the_counts_of_every_bag(seed):
    batch = bags(seed)
    targets = AssignmentLoss(0.0, 0.0, None).targets(batch.X, batch)
    assert ((targets == 0) | (targets == 1)).all()
    assert (targets.sum(dim=1) == 1).all()
    counts = torch.zeros(3, 4).index_add(0, batch.bag, targets)
    expected = largest_remainder(batch.lower.numpy(), torch.bincount(batch.bag).numpy())
    assert counts.int().tolist() == expected.tolist()
    assert (counts[:, 1] == 0).all()


def test_labels_are_the_best_that_fit():
    """Two of three must be of class 0: the ones that lose least by it."""
    X = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    batch = batch_of(X, lower=[[2 / 3, 1 / 3]])
    targets = AssignmentLoss(0.0, 0.0, None).targets(X, batch)
    assert targets.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("share", np.arange(1, 20) / 20)
def test_ends_that_are_whole_numbers_of_instances_are_within(share):
    """Three tenths of ten instances are three, not 3.0000001."""
    X = torch.tensor([[-1.0, 1.0]]).repeat(20, 1)
    batch = batch_of(X, lower=[[share, 0.0]], upper=[[1.0, 1 - share]])
    targets = AssignmentLoss(0.0, 0.0, None).targets(X, batch)
    assert targets[:, 0].sum() == round(20 * share)


def test_cost_by_hand_with_a_gate():
    X = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.5, 0.0]])
    batch = batch_of(X, lower=[[2 / 3, 1 / 3]], weights=[0.5])
    p = X.softmax(dim=1)
    assert p[1, 0] < 0.5 < p[2, 0]  # the gate closes for the second
    loss = AssignmentLoss(0.0, 0.5, None)(PassThrough(), batch)
    expected = -0.5 * (p[0, 1].log() + p[2, 0].log()) / 3
    torch.testing.assert_close(loss, expected, check_dtype=False)
    proportions = MeanProportionLoss()(PassThrough(), batch)
    mixed = AssignmentLoss(0.3, 0.5, None)(PassThrough(), batch)
    torch.testing.assert_close(mixed, 0.3 * proportions + 0.7 * expected, check_dtype=False)
    only = AssignmentLoss(1.0, 0.5, None)(PassThrough(), batch)
    torch.testing.assert_close(only, proportions, check_dtype=False)


def test_closed_gate_costs_nothing():
    X = torch.randn(5, 3, requires_grad=True)
    loss = AssignmentLoss(0.0, 1.0, None)(PassThrough(), batch_of(X))
    loss.backward()
    assert loss == 0 and (X.grad == 0).all()


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_soft_labels_have_the_recorded_means(temperature):
    batch = bags(0, dtype=torch.float64)
    targets = AssignmentLoss(0.0, 0.0, temperature).targets(batch.X, batch)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(28, dtype=torch.float64))
    torch.testing.assert_close(batch.bag_means(targets), batch.lower, atol=2e-4, rtol=0)
    assert (targets[:, 1] == 0).all()
    assert ((targets > 0.01) & (targets < 0.99)).any()


def test_no_gradient_through_the_labels():
    batch = bags(1, dtype=torch.float64)
    X = batch.X.clone().requires_grad_()
    loss = AssignmentLoss(0.0, 0.0, 1.0)
    targets = loss.targets(X, batch)
    assert not targets.requires_grad
    soft = batch_of(X, batch.bag, batch.lower)
    (found,) = torch.autograd.grad(loss(PassThrough(), soft), X)
    cross_entropy = -(targets * X.log_softmax(dim=1)).sum(dim=1).mean()
    (expected,) = torch.autograd.grad(cross_entropy, X)
    torch.testing.assert_close(found, expected)


def test_weight_of_a_bag():
    heavy, none = bags(2, weights=[1.0, 0.0, 2.0]), bags(2, weights=[0.0, 0.0, 0.0])
    loss = AssignmentLoss(0.5, 0.0, None)
    assert loss(PassThrough(), none) == 0
    X = heavy.X.clone().requires_grad_()
    moved = batch_of(X, heavy.bag, heavy.lower, weights=[1.0, 0.0, 2.0])
    (gradient,) = torch.autograd.grad(loss(PassThrough(), moved), X)
    assert (gradient[heavy.bag == 1] == 0).all() and (gradient[heavy.bag == 2] != 0).any()


def test_a_fit_labels_the_patches_of_the_bags_better():
    data = make_bags(20, bag_size=30, class_separation=1.0, random_state=0)
    wrong = []
    for some in (None, data.bags):
        clf = AssignmentClassifier(max_epochs=15, learning_rate=0.02, random_state=0)
        clf.fit(data.X_labeled, data.y, some)
        wrong.append((clf.predict(data.bags.X) != data.y_bags).mean())
    assert wrong[1] < 0.7 * wrong[0]
