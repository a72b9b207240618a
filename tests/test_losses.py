"""Losses: closed forms, other libraries, gradients, saturation, empty selections."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from proportion_ssl import (
    MultiNegativeLoss,
    NegativeLoss,
    PositiveLoss,
    SignedLabelLoss,
    log_not,
    multi_negative_loss,
    negative_loss,
    positive_loss,
)

FUNCTIONS = [positive_loss, negative_loss, multi_negative_loss]
MODULES = [PositiveLoss(), NegativeLoss(), MultiNegativeLoss(), SignedLabelLoss()]


def random_case(n=30, n_classes=5, dtype=torch.float64):
    logits = torch.randn(n, n_classes, dtype=dtype) * 3
    signed = torch.randint(-1, 2, (n, n_classes))
    signed[:5] = 0
    return logits, signed


def loss_by_loop(name, logits, signed):
    """Equations (6), (3) and (4) in plain Python floats."""
    losses = []
    for z, y in zip(logits.tolist(), signed.tolist(), strict=True):
        e = np.exp(np.array(z) - max(z))
        f = e / e.sum()
        if name == "positive":
            losses.append(sum(-np.log(f[c]) for c in range(len(f)) if y[c] > 0))
            continue
        n_negative = sum(v < 0 for v in y)
        loss = sum(-np.log(1 - f[c]) for c in range(len(f)) if y[c] < 0)
        if name == "multi":
            loss *= (len(f) - n_negative) / (len(f) - 1)
        losses.append(loss)
    return losses


@pytest.mark.parametrize(
    ("function", "name"), list(zip(FUNCTIONS, ["positive", "negative", "multi"], strict=True))
)
def test_against_a_loop(function, name):
    logits, signed = random_case()
    assert_allclose(function(logits, signed).numpy(), loss_by_loop(name, logits, signed))


def test_positive_loss_is_cross_entropy():
    logits = torch.randn(20, 4)
    labels = torch.randint(0, 4, (20,))
    expected = F.cross_entropy(logits, labels)
    assert_allclose(PositiveLoss()(logits, F.one_hot(labels, 4)), expected, rtol=1e-6)


def test_one_negative_label_makes_multi_negative_equal_to_single():
    logits = torch.randn(20, 4)
    signed = -F.one_hot(torch.randint(0, 4, (20,)), 4)
    assert_allclose(multi_negative_loss(logits, signed), negative_loss(logits, signed))


def test_all_classes_negative_costs_nothing_in_multi_negative():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = MultiNegativeLoss()(logits, -torch.ones(3, 4))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_weight_falls_linearly_with_the_number_of_negatives():
    logits = torch.zeros(4, 5)
    signed = -torch.tril(torch.ones(4, 5))
    ratio = multi_negative_loss(logits, signed) / negative_loss(logits, signed)
    assert_allclose(ratio, [1, 0.75, 0.5, 0.25], rtol=1e-6)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
def test_gradients(module):
    logits, signed = random_case(n=8)
    assert torch.autograd.gradcheck(lambda z: module(z, signed), logits.requires_grad_())


@pytest.mark.parametrize("logit", [0.0, 20.0, 200.0, 1e4])
def test_negative_loss_pushes_a_saturated_instance(logit):
    logits = torch.tensor([[logit, 0.0, 0.0]], requires_grad=True)
    loss = NegativeLoss()(logits, torch.tensor([[-1, 0, 0]]))
    loss.backward()
    assert torch.isfinite(loss)
    probability = torch.softmax(logits.detach(), dim=-1)[0, 0]
    # d/dz_c of -log(1 - f_c) is f_c, and the others share it evenly
    assert_allclose(logits.grad, [[probability, -probability / 2, -probability / 2]], rtol=1e-5)


def test_log_not_of_improbable_classes_is_exact():
    logits = torch.tensor([[0.0, -300.0, -20.0]], requires_grad=True)
    values = log_not(logits)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits.grad).all()
    assert_allclose(values[0, 2].item(), -np.exp(-20.0), rtol=1e-5)


def test_log_not_with_tied_largest_logits():
    assert_allclose(log_not(torch.zeros(1, 2)), np.log([[0.5, 0.5]]), rtol=1e-6)


def test_log_not_needs_two_classes():
    with pytest.raises(ValueError, match="at least two classes"):
        log_not(torch.zeros(3, 1))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("n", [0, 4])
def test_empty_selection_is_zero_and_differentiable(module, n):
    logits = torch.randn(n, 3, requires_grad=True)
    loss = module(logits, torch.zeros(n, 3, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
def test_instances_without_label_change_nothing(module):
    logits, signed = random_case()
    selected = module.selected(signed)
    assert_allclose(module(logits, signed), module(logits[selected], signed[selected]))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
def test_order_of_classes_does_not_matter(module):
    logits, signed = random_case()
    order = torch.tensor([3, 1, 4, 0, 2])
    assert_allclose(module(logits[:, order], signed[:, order]), module(logits, signed))


def test_every_instance_weighs_the_same_in_the_joint_loss():
    logits, _ = random_case(n=10)
    signed = torch.zeros(10, 5)
    signed[:9, 0], signed[9, 1] = 1, -1
    expected = (positive_loss(logits, signed).sum() + negative_loss(logits, signed).sum()) / 10
    assert_allclose(SignedLabelLoss()(logits, signed), expected)


def test_size_of_a_label_weighs_it():
    logits = torch.randn(4, 3)
    signed = torch.eye(3)[[0, 1, 2, 0]]
    assert_allclose(positive_loss(logits, signed * 0.25), positive_loss(logits, signed) * 0.25)
    assert_allclose(negative_loss(logits, -signed * 0.25), negative_loss(logits, -signed) * 0.25)


def test_class_indices_instead_of_signed_labels_are_refused():
    with pytest.raises(ValueError, match="one-hot"):
        PositiveLoss()(torch.zeros(3, 4), torch.zeros(3))
