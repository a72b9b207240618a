"""Losses: closed forms, other libraries, gradients, saturation, empty selections."""

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from proportion_ssl import NegativePseudoLabelClassifier, losses
from proportion_ssl.datasets import make_bags
from proportion_ssl.losses import (
    NegativeLoss,
    PositiveLoss,
    SignedLabelLoss,
    _renamed,
    gradient_ascent_complementary_loss,
    log_not,
    multi_complementary_loss,
    multi_negative_loss,
    negative_loss,
    non_negative_complementary_loss,
    one_versus_all_loss,
    pairwise_comparison_loss,
    positive_loss,
    proportion_loss,
    unbiased_complementary_loss,
)

FUNCTIONS = [positive_loss, negative_loss, multi_negative_loss]
COMPLEMENTARY = [
    pairwise_comparison_loss,
    one_versus_all_loss,
    multi_complementary_loss,
    unbiased_complementary_loss,
    non_negative_complementary_loss,
    gradient_ascent_complementary_loss,
]
LOSSES = [NegativeLoss(function) for function in COMPLEMENTARY]
MODULES = [
    *(PositiveLoss(), NegativeLoss(), NegativeLoss(multi_negative_loss), SignedLabelLoss()),
    *LOSSES,
]


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
    loss = NegativeLoss(multi_negative_loss)(logits, -torch.ones(3, 4))
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


def sigmoid_loss(z):
    return 1 / (1 + z.exp())


def ordinary_losses(name, logits):
    """Loss of every class, were it the label, from the definitions in the papers."""
    n_classes = logits.shape[1]
    columns = []
    for y in range(n_classes):
        others = [k for k in range(n_classes) if k != y]
        if name == "pairwise":
            columns.append(sum(sigmoid_loss(logits[:, y] - logits[:, k]) for k in others))
        elif name == "one-versus-all":
            rest = sum(sigmoid_loss(-logits[:, k]) for k in others) / (n_classes - 1)
            columns.append(sigmoid_loss(logits[:, y]) + rest)
        elif name == "squared":
            columns.append((logits[:, y] - 1) ** 2)
        else:
            columns.append(F.cross_entropy(logits, torch.full((len(logits),), y), reduction="none"))
    return torch.stack(columns, dim=1)


def squared_losses(logits):
    return (logits - 1) ** 2


UNBIASED = {
    "pairwise": pairwise_comparison_loss,
    "one-versus-all": one_versus_all_loss,
    "cross-entropy": unbiased_complementary_loss,
    "squared": lambda z, s: unbiased_complementary_loss(z, s, squared_losses),
}


@pytest.mark.parametrize("name", UNBIASED)
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_mean_over_all_sets_of_negatives_is_the_loss_of_the_true_class(name, n_classes):
    logits = torch.randn(7, n_classes, dtype=torch.float64) * 3
    expected = ordinary_losses(name, logits)
    for true in range(n_classes):
        wrong = [k for k in range(n_classes) if k != true]
        for size in range(1, n_classes):
            losses = []
            for negatives in combinations(wrong, size):
                signed = torch.zeros(7, n_classes)
                signed[:, list(negatives)] = -1
                losses.append(UNBIASED[name](logits, signed))
            assert_allclose(torch.stack(losses).mean(dim=0), expected[:, true], atol=1e-12)


def test_unbiased_loss_of_absolute_errors_has_the_closed_form_of_feng():
    logits, signed = random_case()
    signed[signed > 0] = 0
    n_negative = (signed < 0).sum(dim=1)
    signed, logits = signed[n_negative > 0], logits[n_negative > 0]
    n_negative = n_negative[n_negative > 0]
    ruled_out = (logits.softmax(dim=1) * (signed < 0)).sum(dim=1)
    expected = torch.where(n_negative < 5, 2 * 4 / n_negative * ruled_out, 0)
    absolute = unbiased_complementary_loss(logits, signed, lambda z: 2 - 2 * z.softmax(dim=1))
    assert_allclose(absolute, expected, atol=1e-12)


def test_one_label_in_ordinary_losses_by_hand():
    """Ishida et al. (2019): all classes once, the negative one minus (C - 1) times."""
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.5]], dtype=torch.float64)
    losses = ordinary_losses("cross-entropy", logits)[0]
    loss = unbiased_complementary_loss(logits, torch.tensor([[0, 0, -1, 0]]))
    assert_allclose(loss, [losses.sum() - 3 * losses[2]])


def test_multi_complementary_loss_of_one_negative_and_of_one_class_left():
    logits = torch.randn(20, 4, dtype=torch.float64) * 5
    labels = torch.randint(0, 4, (20,))
    one_hot = F.one_hot(labels, 4)
    assert_allclose(multi_complementary_loss(logits, -one_hot), negative_loss(logits, -one_hot))
    assert_allclose(
        multi_complementary_loss(logits, one_hot - 1),
        F.cross_entropy(logits, labels, reduction="none"),
    )


def test_multi_complementary_loss_against_probabilities():
    logits, signed = random_case()
    left = (logits.softmax(dim=1) * (signed >= 0)).sum(dim=1)
    expected = torch.where(left > 0, -left.log(), 0)
    assert_allclose(multi_complementary_loss(logits, signed), expected, atol=1e-12)


@pytest.mark.parametrize("module", LOSSES, ids=repr)
def test_complementary_losses_with_saturated_logits(module):
    logits = torch.tensor([[200.0, 0, -200], [-200, 0, 200], [200, 200, 200]], requires_grad=True)
    for signed in ([-1, 0, 0], [0, 0, -1], [-1, 0, -1], [-1, -1, -1]):
        loss = module(logits, torch.tensor(signed).repeat(3, 1))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_multi_complementary_loss_pushes_a_saturated_instance():
    logits = torch.tensor([[200.0, 199.0, 0.0]], requires_grad=True)
    multi_complementary_loss(logits, torch.tensor([[-1, -1, 0]])).sum().backward()
    first, second = torch.tensor([1.0, 0.0]).softmax(dim=0)
    assert_allclose(logits.grad, [[first, second, -1.0]], rtol=1e-5)


@pytest.mark.parametrize("module", LOSSES, ids=repr)
def test_an_instance_of_no_class_and_one_of_a_positive_label_cost_nothing(module):
    logits = torch.randn(2, 3, requires_grad=True)
    losses = module.instance_losses(logits, torch.tensor([[-1, -1, -1], [0, 1, 0]]))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert (losses == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize("module", LOSSES, ids=repr)
def test_size_of_negative_labels_weighs_an_instance(module):
    logits, signed = random_case()
    whole = module.instance_losses(logits, signed)
    assert_allclose(module.instance_losses(logits, signed * 0.25), whole * 0.25)


def risks_by_loop(logits, signed):
    """What each class adds to the unbiased estimate of a batch."""
    losses = ordinary_losses("cross-entropy", logits)
    n_classes = logits.shape[1]
    risks = torch.zeros(n_classes, dtype=logits.dtype)
    for i in range(len(logits)):
        n_negative = int((signed[i] < 0).sum())
        for k in range(n_classes):
            if 0 < n_negative < n_classes:
                factor = -(n_classes - 1 - n_negative) / n_negative if signed[i, k] < 0 else 1
                risks[k] += factor * losses[i, k]
    return risks


def overfitted_case():
    """Instances that are said not to be of class 0, or class 1, by a net that agrees."""
    logits = torch.randn(12, 4, dtype=torch.float64)
    logits[:, :2] -= 6
    signed = torch.zeros(12, 4)
    signed[:9, 0], signed[9:, 1] = -1, -1
    return logits.requires_grad_(), signed


def test_non_negative_and_ascending_corrections_by_class_of_the_batch():
    logits, signed = overfitted_case()
    risks = risks_by_loop(logits, signed)
    assert (risks < 0).any()
    assert (risks > 0).any()
    for function, expected in (
        (unbiased_complementary_loss, risks.sum()),
        (non_negative_complementary_loss, risks.clamp(min=0).sum()),
        (gradient_ascent_complementary_loss, -risks.clamp(max=0).sum()),
    ):
        loss = function(logits, signed).sum()
        assert_allclose(loss.detach(), expected.detach())
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        (wanted,) = torch.autograd.grad(expected, logits, retain_graph=True)
        assert_allclose(gradient, wanted, atol=1e-12)


def test_corrections_change_nothing_while_all_classes_are_positive():
    logits = torch.zeros(8, 4, dtype=torch.float64)
    signed = -torch.eye(4).repeat(2, 1)
    expected = unbiased_complementary_loss(logits, signed)
    assert (risks_by_loop(logits, signed) >= 0).all()
    for function in (non_negative_complementary_loss, gradient_ascent_complementary_loss):
        assert_allclose(function(logits, signed), expected)


@pytest.mark.parametrize("function", COMPLEMENTARY, ids=lambda f: f.__name__)
def test_the_classifier_takes_a_complementary_loss(function):
    data = make_bags(n_bags=4, bag_size=20, random_state=0)
    settings = {"max_epochs": 6, "positive_selector": None, "refit": False, "random_state": 0}
    start = NegativePseudoLabelClassifier(negative_selector=None, **settings)
    start.fit(data.X_labeled, data.y, data.bags)
    clf = NegativePseudoLabelClassifier(negative_loss=NegativeLoss(function), **settings)
    clf.fit(data.X_labeled, data.y, data.bags)
    assert (clf.signed_labels_ < 0).any()
    probabilities = clf.predict_proba(data.X_test)
    assert np.isfinite(probabilities).all()
    assert not np.allclose(probabilities, start.predict_proba(data.X_test))


@pytest.mark.parametrize("name", _renamed.FORMER)
def test_former_classes_still_make_the_loss_that_they_were(name):
    with pytest.warns(FutureWarning, match=rf"losses\.{name}\(\) is now NegativeLoss\(\w+_loss\)"):
        make = getattr(losses, name)
    module, (logits, signed) = make(), random_case()
    assert isinstance(module, NegativeLoss)
    assert_allclose(module(logits, signed), NegativeLoss(_renamed.FORMER[name])(logits, signed))


def test_former_class_with_losses_of_the_classes():
    with pytest.warns(FutureWarning, match="UnbiasedComplementaryLoss"):
        make = losses.UnbiasedComplementaryLoss
    logits, signed = random_case()
    expected = unbiased_complementary_loss(logits, signed, torch.square)
    assert_allclose(make(torch.square).instance_losses(logits, signed), expected)
    with pytest.raises(AttributeError, match="has no attribute 'OtherLoss'"):
        _ = losses.OtherLoss


def test_a_negative_loss_is_shown_with_its_function():
    assert repr(NegativeLoss(multi_negative_loss)) == "NegativeLoss(loss=multi_negative_loss)"


def test_a_loss_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="loss is 'log'; give a function"):
        NegativeLoss("log")


# The proportion loss


def test_proportion_loss_in_closed_form():
    means = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.2, 0.8]])
    recorded = torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    expected = [0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25), 0.0, -np.log(0.2)]
    assert_allclose(proportion_loss(means, recorded, recorded), expected, rtol=1e-6, atol=1e-7)


def test_proportion_loss_without_width_is_the_divergence():
    means = torch.randn(8, 5, dtype=torch.float64).softmax(dim=1).requires_grad_()
    recorded = torch.randn(8, 5, dtype=torch.float64).softmax(dim=1)
    loss = proportion_loss(means, recorded, recorded)
    expected = F.kl_div(means.log(), recorded, reduction="none").sum(dim=1)
    assert_allclose(loss.detach(), expected.detach(), rtol=1e-12)
    # through a softmax the gradients agree, too
    logits = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    losses = (
        proportion_loss(logits.softmax(dim=1), recorded, recorded).sum(),
        F.kl_div(logits.log_softmax(dim=1), recorded, reduction="sum"),
    )
    one, other = (torch.autograd.grad(loss, logits)[0] for loss in losses)
    assert_allclose(one, other, atol=1e-12)


def test_proportion_loss_is_zero_within_the_interval():
    means = torch.tensor([[0.3, 0.7], [0.2, 0.8]], requires_grad=True)
    lower, upper = torch.tensor([[0.2, 0.6]] * 2), torch.tensor([[0.4, 0.8]] * 2)
    loss = proportion_loss(means, lower, upper)
    assert_allclose(loss.detach(), [0, 0], atol=1e-7)
    loss.sum().backward()
    assert_allclose(means.grad, np.zeros((2, 2)), atol=1e-7)


def test_proportion_loss_outside_the_interval_by_hand():
    """Below the lower end of one class, within the interval of the other."""
    means = torch.tensor([[0.1, 0.9]], dtype=torch.float64, requires_grad=True)
    lower, upper = (torch.tensor([ends], dtype=torch.float64) for ends in ([0.2, 0.5], [0.4, 1.0]))
    loss = proportion_loss(means, lower, upper)
    assert_allclose(loss.item(), 0.2 * np.log(0.2 / 0.1) + 0.1 - 0.2)
    loss.backward()
    assert_allclose(means.grad, [[1 - 0.2 / 0.1, 0.0]], atol=1e-12)


def test_proportion_loss_gradient():
    means = torch.randn(6, 4, dtype=torch.float64).softmax(dim=1).requires_grad_()
    recorded = torch.randn(6, 4, dtype=torch.float64).softmax(dim=1)
    recorded[0] = torch.tensor([1.0, 0, 0, 0])

    def exact(values):
        return proportion_loss(values, recorded, recorded)

    assert torch.autograd.gradcheck(exact, means)
    wide = (recorded - 0.03).clamp(min=0), (recorded + 0.03).clamp(max=1)

    # the target moves with the prediction, but where it does the gradient is 0 all the same
    def interval(values):
        target = torch.clamp(values, *wide)
        divergence = torch.xlogy(target, target) - torch.xlogy(target, values)
        return (divergence + values - target).sum(dim=1)

    (expected,) = torch.autograd.grad(interval(means).sum(), means)
    (gradient,) = torch.autograd.grad(proportion_loss(means, *wide).sum(), means)
    assert_allclose(gradient, expected, atol=1e-12)
    assert (gradient == 0).any() and (gradient != 0).any()


def test_proportion_loss_is_never_negative_and_grows_with_the_distance():
    recorded = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    lower, upper = recorded - 0.1, recorded + 0.1
    share = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    means = torch.stack([share, 1 - share], dim=1)
    loss = proportion_loss(means, lower.expand_as(means), upper.expand_as(means))
    assert (loss >= 0).all()
    assert (loss[share < 0.2].diff() < 0).all() and (loss[share > 0.4].diff() > 0).all()
    assert loss[(share > 0.2) & (share < 0.4)].abs().max() < 1e-12


def test_proportion_loss_of_probabilities_that_underflow():
    """Where one is 0 there is no slope to follow, but neither is there a number that spoils the net."""
    recorded = torch.tensor([[0.0, 1.0], [0.4, 0.6], [1.0, 0.0]])
    logits = torch.tensor([[-2000.0, 2000.0]] * 3, requires_grad=True)
    loss = proportion_loss(logits.softmax(dim=1), recorded, recorded)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
    assert_allclose(loss.detach()[0], 0, atol=1e-7)
    assert loss[2] > loss[1] > 30


class TestPartialProportions:
    """Proportion loss of shares that are recorded among some classes only."""

    AMONG = torch.tensor([[True, True, False, True]])
    RECORDED = torch.tensor([[0.5, 0.2, 0.0, 0.3]], dtype=torch.float64)

    def loss(self, means, among=AMONG):
        return proportion_loss(means, self.RECORDED, self.RECORDED, among)

    def test_is_that_of_lplp(self):
        """Subtypes of an instance weighted by its tumor score: ``sum_i s_i q_i / sum_i s_i``."""
        logits = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        f = logits.softmax(dim=1)
        tumor = self.AMONG[0]
        score = f[:, tumor].sum(dim=1, keepdim=True)
        subtypes = logits[:, tumor].softmax(dim=1)
        estimate = (score * subtypes).sum(dim=0) / score.sum()
        recorded = self.RECORDED[0, tumor]
        expected = (recorded * (recorded / estimate).log()).sum()
        torch.testing.assert_close(self.loss(f.mean(dim=0, keepdim=True))[0], expected)

    def test_among_all_classes_is_the_loss_of_a_complete_record(self):
        means = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
        recorded = torch.tensor([[0.25, 0.25, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4]])
        everywhere = torch.ones(2, 4, dtype=torch.bool)
        complete = proportion_loss(means, recorded, recorded)
        assert torch.equal(proportion_loss(means, recorded, recorded, everywhere), complete)

    def test_share_of_the_other_classes_does_not_count(self):
        means = torch.tensor([[0.4, 0.1, 0.3, 0.2]], dtype=torch.float64)
        less = torch.where(self.AMONG, means / 7, 0.9)
        torch.testing.assert_close(self.loss(means), self.loss(less))
        means.requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(means).sum(), means)
        assert (gradient * means).sum().item() == pytest.approx(0, abs=1e-12)

    def test_nothing_where_shares_among_the_classes_agree(self):
        means = torch.where(self.AMONG, 0.3 * self.RECORDED, 0.7).requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(means).sum(), means)
        assert self.loss(means).item() == pytest.approx(0, abs=1e-12)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)

    def test_finite_where_none_of_the_classes_is_predicted(self):
        logits = torch.zeros(3, 4, dtype=torch.float64)
        logits[:, 2] = 200.0
        logits[:, 0] = -50.0
        logits.requires_grad_()
        loss = self.loss(logits.softmax(dim=1).mean(dim=0, keepdim=True)).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()

    def test_gradient_check(self):
        means = torch.tensor([[0.4, 0.1, 0.3, 0.2]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(self.loss, (means,))
