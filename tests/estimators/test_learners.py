"""What heads learn from in the rounds, and when it is not used: soft labels, harm, idle records."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn

from proportion_ssl import (
    AdaptiveSelector,
    AssignmentSelector,
    Bags,
    HeadClassifier,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    RobustProportionClassifier,
    SoftAssignmentSelector,
    ThresholdSelector,
    mean_iou_score,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import HarmfulLabelsWarning, _learners
from proportion_ssl.estimators._learners import (
    HARM,
    MOST_JUDGED,
    NetLearner,
    SolvedLearner,
    do_harm,
    labels_say_so,
    leads_away,
    mix_up_classes,
    records_say_nothing,
    soft_labels,
)
from proportion_ssl.heads import DiscriminantClassifier, SoftLogisticRegression
from proportion_ssl.losses import negative_loss
from proportion_ssl.pseudo_labels import Selector

DATA = make_bags(
    n_bags=16,
    n_labeled_slides=6,
    n_features=16,
    class_separation=0.7,
    slide_shift=0.4,
    random_state=0,
)
SOLVED = [DiscriminantClassifier(), SoftLogisticRegression()]
HEADS = [*SOLVED, HeadClassifier(), NeuralNetClassifier(nn.Linear(16, 4), lr=0.1, verbose=0)]
SELECTORS = [
    AdaptiveSelector(),
    ThresholdSelector(0.7),
    AssignmentSelector(),
    SoftAssignmentSelector(),
    NegativeSelector(),
]


def name(thing):
    return type(thing).__name__


SOFT = {"positive_selector": SoftAssignmentSelector(), "negative_selector": None}


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize(
    "model",
    [
        RobustProportionClassifier(n_components=8),
        NegativePseudoLabelClassifier(DiscriminantClassifier(8), **SOFT),
        NegativePseudoLabelClassifier(SoftLogisticRegression(n_components=8), **SOFT),
    ],
    ids=["preset", "discriminant", "logistic"],
)
def test_copies_of_the_instances_of_a_bag_do_not_count(model, groups):
    """A bag weighs no more than a labeled slide, however many instances it has."""
    data = make_bags(
        n_bags=12, bag_size=(120, 200), n_labeled_slides=4, class_separation=0.7, random_state=0
    )
    few = np.concatenate([np.flatnonzero(data.groups == s)[:25] for s in np.unique(data.groups)])
    given = {"groups": data.groups[few] if groups else None}
    bags, found = data.bags, []
    for n_copies in (1, 10):
        rows = np.repeat(np.arange(bags.n_instances), n_copies)
        copies = Bags(bags.X[rows], bags.names[bags.index[rows]], bags.proportions)
        fitted = clone(model).set_params(random_state=0)
        fitted.fit(data.X_labeled[few], data.y[few], copies, **given)
        assert not fitted.fell_back_
        found.append(fitted.predict_proba(data.X_test))
    assert_allclose(*found, atol=1e-3)


# --- soft labels ---------------------------------------------------------------------------------


def instance(seed, n_classes):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, n_classes), int(rng.integers(n_classes))


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_of_one_negative_label_the_gradient_is_that_of_equation_3(seed, n_classes):
    values, excluded = instance(seed, n_classes)
    signed = np.zeros((1, n_classes))
    signed[0, excluded] = -1
    logits = torch.tensor(values[np.newaxis], requires_grad=True)
    soft = soft_labels(signed, logits.detach().softmax(dim=1).numpy())
    assert soft.sum() == pytest.approx(1)
    (expected,) = torch.autograd.grad(negative_loss(logits, torch.tensor(signed)).sum(), logits)
    cross_entropy = -(torch.tensor(soft) * logits.log_softmax(dim=1)).sum()
    (found,) = torch.autograd.grad(cross_entropy, logits)
    assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_its_cross_entropy_lies_above_equation_3_and_meets_it_at_the_prediction(seed):
    values, excluded = instance(seed, 4)
    signed = -np.eye(4)[[excluded]]
    probabilities = np.exp(values - logsumexp(values))[np.newaxis]
    soft = soft_labels(signed, probabilities)[0].astype(float)
    kept = np.arange(4) != excluded
    entropy = -(soft[kept] * np.log(soft[kept])).sum()

    def gap(logits):
        logs = logits - logsumexp(logits)
        return -(soft[kept] * logs[kept]).sum() - entropy + np.log1p(-np.exp(logs[excluded]))

    assert gap(values) == pytest.approx(0, abs=1e-6)
    for other in np.random.default_rng(seed).normal(0, 3, (50, 4)):
        assert gap(other) > -1e-6


@pytest.mark.parametrize("n_classes", [3, 4, 6])
@pytest.mark.parametrize("weight", [1.0, 0.5, 3.0])
def test_several_negative_labels_weigh_as_in_equation_4(n_classes, weight):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(n_classes), 1)
    for n_negative in range(1, n_classes):
        signed = np.zeros((1, n_classes))
        signed[0, :n_negative] = -weight
        soft = soft_labels(signed, probabilities)
        expected = weight * (n_classes - n_negative) / (n_classes - 1)
        assert soft.sum() == pytest.approx(expected)
        assert not soft[0, :n_negative].any()
        left = probabilities[0, n_negative:]
        assert_allclose(soft[0, n_negative:], expected * left / left.sum(), rtol=1e-6)


def test_soft_labels_stay_where_the_label_is_obeyed():
    """A prediction without the excluded class is its own soft label; so is what came of one."""
    signed = -np.eye(3)[[1, 1]]
    probabilities = np.array([[0.25, 0.0, 0.75], [0.2, 0.6, 0.2]])
    once = soft_labels(signed, probabilities)
    assert_allclose(once[0], probabilities[0])
    assert_array_equal(soft_labels(signed, once), once)


def test_other_labels():
    signed = np.array(
        [[0, 1, 0], [0, 0, 0], [-1, -1, -1], [1, -1, 0], [0.2, 0.5, 0.3], [0, -1, -1]]
    )
    probabilities = np.array([[0.2, 0.5, 0.3]] * 5 + [[0.0, 0.5, 0.5]])
    soft = soft_labels(signed, probabilities)
    expected = [[0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [0.2, 0.5, 0.3], [0.5, 0, 0]]
    assert_allclose(soft, expected)
    assert soft.dtype == np.float32


# --- heads and rules ------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", SELECTORS, ids=name)
@pytest.mark.parametrize("head", HEADS, ids=name)
@pytest.mark.filterwarnings("ignore::proportion_ssl.estimators.HarmfulLabelsWarning")
def test_any_head_learns_by_any_rule(head, selector):
    sides = {"positive_selector": selector, "negative_selector": None}
    if isinstance(selector, NegativeSelector):
        sides = {"positive_selector": None, "negative_selector": selector}
    clf = NegativePseudoLabelClassifier(clone(head), **sides, max_epochs=15, random_state=0)
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert clf.score(DATA.X_test, DATA.y_test) > 0.5
    assert_array_equal(clf.label_log_.replay(), clf.signed_labels_)
    again = clone(clf).fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert_array_equal(again.predict_proba(DATA.X_test), clf.predict_proba(DATA.X_test))


@pytest.mark.parametrize("head", SOLVED, ids=name)
def test_bags_teach_a_head_that_is_solved_for(head):
    few = np.concatenate([np.flatnonzero(DATA.y == c)[:2] for c in range(4)])
    X, y = DATA.X_labeled[few], DATA.y[few]
    alone = NegativePseudoLabelClassifier(clone(head)).fit(X, y).score(DATA.X_test, DATA.y_test)
    clf = NegativePseudoLabelClassifier(
        clone(head), positive_selector=SoftAssignmentSelector(0.02), negative_selector=None
    ).fit(X, y, DATA.bags)
    assert not clf.fell_back_ and clf.n_iter_ == 11
    assert clf.score(DATA.X_test, DATA.y_test) > alone + 0.02


@pytest.mark.parametrize("head", SOLVED, ids=name)
def test_without_bags_it_is_the_head_alone(head):
    clf = NegativePseudoLabelClassifier(clone(head)).fit(DATA.X_labeled, DATA.y, groups=DATA.groups)
    alone = clone(head).fit(DATA.X_labeled, DATA.y, groups=DATA.groups)
    expected = alone.predict_proba(DATA.X_test)
    assert_allclose(clf.predict_proba(DATA.X_test), expected, atol=2e-4)


def test_a_head_is_not_fitted_and_goes_on_from_nothing():
    head = DiscriminantClassifier()
    NegativePseudoLabelClassifier(head).fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert not hasattr(head, "coef_")
    with pytest.raises(ValueError, match="warm_start=True needs a net trained by gradient descent"):
        NegativePseudoLabelClassifier(head, warm_start=True).fit(DATA.X_labeled, DATA.y)


def test_bags_of_weight_0_teach_nothing():
    bags = DATA.bags.with_instances(DATA.bags.X)
    bags.weights = np.zeros(bags.n_bags)
    for clf in (
        NegativePseudoLabelClassifier(DiscriminantClassifier()),
        RobustProportionClassifier(),
    ):
        found = clone(clf).fit(DATA.X_labeled, DATA.y, bags)
        other = clone(clf).fit(
            DATA.X_labeled, DATA.y, with_records(bags, np.roll(bags.proportions, 1, 1))
        )
        assert_allclose(
            found.predict_proba(DATA.X_test), other.predict_proba(DATA.X_test), atol=1e-6
        )
        assert (
            not found.fell_back_ and 0.2 < found.predict_proba(DATA.X_test).max(axis=1).mean() < 1
        )


# --- when bags are not used -----------------------------------------------------------------------


def with_records(bags, proportions):
    return Bags(bags.X, bags.names[bags.index], proportions, weights=bags.weights)


@pytest.mark.parametrize(
    "clf",
    [
        NegativePseudoLabelClassifier(DiscriminantClassifier()),
        NegativePseudoLabelClassifier(SoftLogisticRegression()),
        RobustProportionClassifier(),
    ],
    ids=lambda clf: name(getattr(clf, "estimator", None) or clf),
)
def test_records_of_other_slides_are_not_used_and_right_ones_are(clf):
    clf = clone(clf).set_params(random_state=0)
    alone = clone(clf).fit(DATA.X_labeled, DATA.y, groups=DATA.groups)
    others = with_records(DATA.bags, np.roll(DATA.bags.proportions, 5, axis=0))
    with pytest.warns(
        HarmfulLabelsWarning, match=r"permuted at random.*supervised classifier is kept"
    ):
        clf.fit(DATA.X_labeled, DATA.y, others, groups=DATA.groups)
    assert clf.fell_back_
    scores = [one.score(DATA.X_test, DATA.y_test) for one in (clf, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = clf.fit(DATA.X_labeled, DATA.y, DATA.bags, groups=DATA.groups)
    assert not right.fell_back_


class Wrong(Selector):
    """Every instance is of the next class."""

    def select(self, probabilities, bag_index, bag_proportions):
        wrong = (probabilities.argmax(axis=1) + 1) % probabilities.shape[1]
        return np.eye(probabilities.shape[1], dtype=np.int8)[wrong]


def test_a_net_goes_back_to_the_weights_of_the_labeled_patches(monkeypatch):
    """Where validation slides are predicted worse, or patches much worse."""
    settings = {"validation_fraction": 0.5, "max_epochs": 20, "random_state": 0}
    kept = []
    original = NetLearner.fit_labeled

    def fit_labeled(self, **options):
        losses = original(self, **options)
        kept.append(copy.deepcopy(self.net.module_.state_dict()))
        return losses

    monkeypatch.setattr(NetLearner, "fit_labeled", fit_labeled)
    harmed = NegativePseudoLabelClassifier(
        positive_selector=Wrong(), negative_selector=None, **settings
    )
    with pytest.warns(
        HarmfulLabelsWarning, match=r"balanced accuracy .* is 0\.\d+ with bags and 0\.\d+ without"
    ):
        harmed.fit(DATA.X_labeled, DATA.y, DATA.bags, groups=DATA.groups)
    assert harmed.fell_back_
    weights = harmed.estimator_.module_.state_dict()
    for key, supervised in kept[0].items():
        assert_array_equal(weights[key].numpy(), supervised.numpy())
    for fraction, groups in ((0.5, None), (0.3, DATA.groups)):  # no slides, or two of them
        other = clone(harmed).set_params(validation_fraction=fraction)
        with pytest.warns(HarmfulLabelsWarning, match="held-out labeled patches"):
            other.fit(DATA.X_labeled, DATA.y, DATA.bags, groups=groups)
        assert other.fell_back_
    blind = clone(harmed).set_params(validation_fraction=0.0)
    assert not blind.fit(DATA.X_labeled, DATA.y, DATA.bags).fell_back_


def test_harm_by_hand():
    """Two classes of 4 instances on 4 slides: a change of one instance is 1/4 of a class."""
    codes, slides = np.array([0, 1] * 4), np.repeat(np.arange(4), 2)
    right = np.ones(8, dtype=bool)
    one_worse = right.copy()
    one_worse[0] = False
    assert not do_harm(right, one_worse, codes, slides)  # -1 / sqrt(1)
    three = right.copy()
    three[[0, 2, 4]] = False  # -3 / sqrt(3) = -1.73
    assert -3 / np.sqrt(3) < HARM < -np.sqrt(2)
    with pytest.warns(
        HarmfulLabelsWarning, match=r"is 0\.62 with bags and 1\.00 without \(4 slides\)"
    ):
        assert do_harm(right, three, codes, slides)
    assert not do_harm(right, three, codes, np.minimum(slides, 1))  # two slides cannot say so
    assert not do_harm(three, right, codes, slides)
    assert not do_harm(np.empty(0, bool), np.empty(0, bool), np.empty(0, int), np.empty(0, int))


def test_classes_mixed_up_by_hand():
    codes = np.repeat([0, 2, 5], 20)
    exchanged = np.repeat([2, 0, 5], 20)
    with pytest.warns(
        HarmfulLabelsWarning, match=r"with bags is 0\.33, but 1\.00 if classes are exchanged"
    ):
        assert mix_up_classes(codes, exchanged, codes)
    assert not mix_up_classes(exchanged, codes, codes)
    assert not mix_up_classes(exchanged, exchanged, codes)  # as wrong without pseudo labels
    lost = np.where(np.arange(60) % 5 < 2, 7, codes)  # .6 of what is above chance
    with pytest.warns(HarmfulLabelsWarning, match=r"is 0\.60 with bags and 1\.00 without"):
        assert mix_up_classes(codes, lost, codes)
    less = np.where(np.arange(60) % 10 < 3, 7, codes)  # .45 of it
    assert not mix_up_classes(codes, less, codes)
    few = np.arange(3)
    assert not mix_up_classes(few, few[[1, 0, 2]], few)  # too few patches to be sure
    assert not mix_up_classes(np.zeros(9), np.ones(9), np.zeros(9, dtype=int))  # a single class


def test_known_slides_are_judged_by_slide_first():
    codes, slides = np.tile([0, 1], 60), np.repeat(np.arange(6), 20)
    after = np.where(np.arange(120) % 20 < 4, 1 - codes, codes)  # a fifth wrong on every slide
    with pytest.warns(HarmfulLabelsWarning, match="slides"):
        assert labels_say_so(codes, after, codes, slides)
    assert not labels_say_so(codes, after, codes, None)
    after = np.where(np.arange(120) % 20 < 6, 1 - codes, codes)
    with pytest.warns(HarmfulLabelsWarning, match="patches"):
        assert labels_say_so(codes, after, codes, None)


@pytest.mark.parametrize(
    "model",
    [
        RobustProportionClassifier(n_components=8, random_state=0),
        NegativePseudoLabelClassifier(DiscriminantClassifier(8), random_state=0),
        NegativePseudoLabelClassifier(random_state=0),
    ],
    ids=["preset", "solved", "net"],
)
def test_records_with_classes_in_another_order_are_found_without_slides(model):
    """A fit on them is consistent: held-out bags have the shares that are recorded, of other classes."""
    data = make_bags(n_bags=30, n_features=128, class_separation=0.4, random_state=0)
    bags = data.bags
    rotated = Bags(bags.X, bags.index, np.roll(bags.proportions, 1, axis=1))
    with pytest.warns(HarmfulLabelsWarning):
        clf = model.fit(data.X_labeled, data.y, rotated)
    assert clf.fell_back_
    assert mean_iou_score(data.y_test, clf.predict(data.X_test)) > 0.5
    assert not model.fit(data.X_labeled, data.y, bags).fell_back_


@pytest.mark.parametrize("seed", range(5))
def test_harm_is_seldom_found_where_there_is_none(seed):
    rng = np.random.default_rng(seed)
    found = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmfulLabelsWarning)
        for _ in range(200):
            before, after = rng.random((2, 120)) < 0.7
            found += do_harm(before, after, rng.integers(0, 3, 120), np.repeat(np.arange(12), 10))
    assert found / 200 < 0.12


def dirichlet(n, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(4), n)


def test_records_that_say_something():
    shares = dirichlet(40)
    rough = np.clip(shares + np.random.default_rng(1).normal(0, 0.15, shares.shape), 0, 1)
    for lower, upper in ((shares, shares), (rough, rough), (shares - 0.1, shares + 0.1)):
        assert not records_say_nothing([shares], lower, upper)
    order = np.random.default_rng(2).permutation(40)
    with pytest.warns(HarmfulLabelsWarning):
        assert records_say_nothing([shares], shares[order], shares[order])


def test_several_predictions_are_judged_together():
    """A prediction that has met the records is outvoted by one that has not, a poor one by a good one."""
    shares = dirichlet(40)
    unrelated = dirichlet(40, seed=1)
    assert not records_say_nothing([unrelated, shares], shares, shares)
    leaked = 0.7 * dirichlet(40, seed=2) + 0.3 * shares
    assert not records_say_nothing([leaked], shares, shares)
    distance = np.abs(shares[:, np.newaxis] - shares).sum(axis=2)
    farthest = shares[distance.argmax(axis=0)]
    with pytest.warns(HarmfulLabelsWarning):
        assert records_say_nothing([farthest, leaked], shares, shares)


def test_bags_led_away_by_hand():
    """Of two classes a shift by d is a distance of 2 d, however the classes weigh."""
    recorded = np.column_stack([np.linspace(0.2, 0.8, 12), np.linspace(0.8, 0.2, 12)])

    def off_by(shift):
        return recorded + np.array([shift, -shift]) * np.where(np.arange(12) % 2, 1, -1)[:, None]

    def judged(before, after, n_bags=12):
        ends = recorded[:n_bags], recorded[:n_bags]
        return leads_away(off_by(before)[:n_bags], off_by(after)[:n_bags], *ends)

    assert not judged(0.1, 0.05)
    assert not judged(0.1, 0.1) and not judged(0.1, 0.109)
    with pytest.warns(
        HarmfulLabelsWarning,
        match=r"held-out bags differ by 0\.111 on average with pseudo labels and by 0\.100 without \(12 bags",
    ):
        assert judged(0.1, 0.111)
    assert not judged(0.01, 0.0149)  # less than half a percentage point
    assert not judged(0.1, 0.15, n_bags=9)
    assert not leads_away(off_by(0.1), off_by(0.15), recorded - 0.15, recorded + 0.15)


def test_rare_classes_count_as_much_when_bags_are_led_away():
    """Common classes come nearer by .04, a class of 2% is lost: distances fall by .06, by class they rise."""
    recorded = np.tile([0.49, 0.49, 0.02], (12, 1))
    before = recorded + [0.04, -0.04, 0.0]
    after = recorded + [0.01, 0.01, -0.02]
    assert np.abs(after - recorded).sum() < 0.6 * np.abs(before - recorded).sum()
    with pytest.warns(HarmfulLabelsWarning, match="rare classes have more weight"):
        assert leads_away(before, after, recorded, recorded)


class FewOfOneClass(Selector):
    """Every instance is what it seems, but half of the second class is of the first."""

    def select(self, probabilities, bag_index, bag_proportions):
        codes = probabilities.argmax(axis=1)
        codes[(codes == 1) & (probabilities[:, 0] > np.median(probabilities[codes == 1, 0]))] = 0
        return np.eye(probabilities.shape[1], dtype=np.int8)[codes]


@pytest.mark.parametrize("groups", [None, DATA.groups], ids=["patches", "slides"])
def test_labels_that_lead_astray_are_not_used_where_records_are_right(groups):
    clf = NegativePseudoLabelClassifier(
        DiscriminantClassifier(), positive_selector=FewOfOneClass(), negative_selector=None
    )
    alone = clone(clf).fit(DATA.X_labeled, DATA.y, groups=groups)
    with pytest.warns(HarmfulLabelsWarning, match=r"held-out (bags|labeled slides)"):
        clf.fit(DATA.X_labeled, DATA.y, DATA.bags, groups=groups)
    assert clf.fell_back_
    assert clf.score(DATA.X_test, DATA.y_test) == pytest.approx(
        alone.score(DATA.X_test, DATA.y_test), abs=0.02
    )


def independent_shares(monkeypatch, bags):
    """Shares of the bags by fits on the other half of them."""
    kept = []
    original = SolvedLearner.finish

    def finish(self):
        kept.append(self.independent)
        return original(self)

    monkeypatch.setattr(SolvedLearner, "finish", finish)
    clf = NegativePseudoLabelClassifier(DiscriminantClassifier())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmfulLabelsWarning)
        clf.fit(DATA.X_labeled, DATA.y, bags)
    return kept[0]


def test_records_are_judged_by_heads_that_never_met_them(monkeypatch):
    """Other records of one half of the bags change what is predicted of the other half alone."""
    first = np.arange(DATA.bags.n_bags) % 2 == 0
    other = DATA.bags.proportions.copy()
    other[first] = np.roll(other[first], 1, axis=0)
    found = independent_shares(monkeypatch, DATA.bags)
    changed = independent_shares(monkeypatch, with_records(DATA.bags, other))
    assert_array_equal(changed[first], found[first])
    assert (changed[~first] != found[~first]).any()


@pytest.mark.parametrize(("by_bags", "by_labels"), [(4.0, 3.0), (3.0, 4.0), (3.0, None)])
def test_the_larger_of_two_temperatures_where_records_are_judged_and_their_mean_otherwise(
    monkeypatch, by_bags, by_labels
):
    monkeypatch.setattr(_learners, "most_probable_temperature", lambda sums: by_bags)
    monkeypatch.setattr(_learners, "typical_temperature", lambda *given: by_labels)
    clf = RobustProportionClassifier().fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert clf.temperature_ == max(by_bags, by_labels or 0)
    found, finish = [], SolvedLearner.finish
    monkeypatch.setattr(SolvedLearner, "finish", lambda self: found.append(finish(self)))
    clf = NegativePseudoLabelClassifier(DiscriminantClassifier())
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert found == [pytest.approx(np.sqrt(by_bags * (by_labels or by_bags)))]


def test_what_is_not_judged():
    shares = dirichlet(9)
    assert not records_say_nothing([shares], shares[::-1], shares[::-1])  # too few
    same = np.full((20, 4), 0.25)
    assert not records_say_nothing(
        [dirichlet(20)], same, same
    )  # all alike: they teach of the whole
    assert not records_say_nothing([dirichlet(20)], same * 0, same * 0 + 1)


def test_many_bags_are_judged_by_some():
    shares = dirichlet(3 * MOST_JUDGED)
    assert not records_say_nothing([shares], shares, shares)
    with pytest.warns(HarmfulLabelsWarning, match=rf"the {MOST_JUDGED} bags"):
        assert records_say_nothing([shares], np.roll(shares, 1, 0), np.roll(shares, 1, 0))


@pytest.mark.parametrize("kind", ["predominant", "partial"])
def test_records_that_say_less_are_judged_by_what_they_say(kind):
    shares = dirichlet(60)
    instances, index = np.zeros((60, 1)), np.arange(60)
    if kind == "predominant":
        bags = Bags.from_predominant(instances, index, shares.argmax(axis=1), classes=range(4))
    else:
        among = shares[:, :3] / shares[:, :3].sum(axis=1, keepdims=True)
        table = pd.DataFrame(among).assign(**{"3": np.nan})
        table.columns = range(4)
        bags = Bags(instances, index, table, among=[0, 1, 2])
    assert not records_say_nothing([shares], bags.record)
    order = np.random.default_rng(1).permutation(60)
    with pytest.warns(HarmfulLabelsWarning):
        assert records_say_nothing([shares], bags.record[order])
    many = np.resize(np.arange(60), MOST_JUDGED + 20)
    assert not records_say_nothing([shares[many]], bags.record[many])


@pytest.mark.parametrize(
    ("head", "threshold"), [(DiscriminantClassifier(), 0.9999), (SoftLogisticRegression(), 0.999)]
)
def test_a_class_that_a_round_gives_no_label_is_not_lost(head, threshold, monkeypatch):
    """No labeled patch shows class 1, and none of the bags is predicted as class 1 so surely."""
    monkeypatch.setattr(_learners, "leads_away", lambda *given: False)  # the labels are used
    data = make_bags(
        n_bags=14, bag_size=(30, 80), n_features=24, class_separation=0.8, proportion_noise=0.03,
        n_labeled_slides=5, random_state=0,
    )  # fmt: skip
    kept = data.y != 1
    model = NegativePseudoLabelClassifier(
        head, positive_selector=ThresholdSelector(threshold), negative_selector=None,
        classes=range(4), random_state=0,
    )  # fmt: skip
    model.fit(data.X_labeled[kept], data.y[kept], data.bags)
    assert all(row["n_positive"][1] == 0 for row in model.history_[1:])
    assert (model.predict(data.X_test)[data.y_test == 1] == 1).mean() > 0.6


@pytest.mark.parametrize("head", SOLVED, ids=name)
def test_a_class_that_neither_labels_nor_records_show_is_never_predicted(head):
    kept = DATA.y != 1
    shares = DATA.bags.proportions.copy()
    shares[:, 0] += shares[:, 1]
    shares[:, 1] = 0
    bags = Bags(DATA.bags.X, DATA.bags.index, shares)
    model = NegativePseudoLabelClassifier(head, classes=range(4), random_state=0)
    model.fit(DATA.X_labeled[kept], DATA.y[kept], bags)
    assert not (model.predict(DATA.X_test) == 1).any()
