"""Selectors on partial records and orders of classes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import (
    AdaptiveSelector,
    AssignmentSelector,
    Bags,
    NegativeSelector,
    SoftAssignmentSelector,
    ThresholdSelector,
)
from proportion_ssl.proportions import OrderRecord, PartialRecord, class_proportions
from proportion_ssl.proportions.weak_records import refuse_weak_records
from proportion_ssl.pseudo_labels.soft_assignment import posterior_labels

SELECTORS = [
    AdaptiveSelector(),
    NegativeSelector(),
    AssignmentSelector(),
    SoftAssignmentSelector(),
]
ids = {"ids": lambda selector: type(selector).__name__}
TUMOR = np.array([True, True, False, True])


def random_case(seed=0, n=400, n_bags=8, n_classes=4):
    """Probabilities of a net that prefers one class, the bag of each instance, and the true labels."""
    rng = np.random.default_rng(seed)
    bag = np.concatenate([np.arange(n_bags), rng.integers(0, n_bags, n - n_bags)])
    shares = rng.dirichlet(np.ones(n_classes), n_bags)
    labels = np.array([rng.choice(n_classes, p=shares[b]) for b in bag])
    logits = rng.normal(0, 1, (n, n_classes)) + 2 * np.eye(n_classes)[labels]
    logits[:, 0] += 1.2
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), bag, labels


def shares_of(labels, bag):
    return class_proportions(labels, bag, n_bags=bag.max() + 1, n_classes=4)


def partial(shares, among=TUMOR):
    mask = np.broadcast_to(among, shares.shape)
    inside = np.where(mask, shares, 0.0)
    inside = inside / inside.sum(axis=1, keepdims=True)
    return PartialRecord(inside, inside, inside, mask)


def transform(selector, probabilities, bag, recorded):
    return selector.transform(probabilities, bag_ids=bag, bag_proportions=recorded)


@pytest.mark.parametrize("selector", SELECTORS, **ids)
class TestPartial:
    def test_among_all_classes_it_is_the_complete_record(self, selector):
        probabilities, bag, labels = random_case()
        shares = shares_of(labels, bag)
        everywhere = np.ones(shares.shape, dtype=bool)
        record = PartialRecord(shares, shares, shares, everywhere)
        assert_array_equal(
            transform(selector, probabilities, bag, record),
            transform(selector, probabilities, bag, shares),
        )

    def test_complete_records_among_partial_ones_change_nothing(self, selector):
        probabilities, bag, labels = random_case()
        shares = shares_of(labels, bag)
        record = partial(shares)
        complete = np.arange(len(shares)) % 2 == 0
        among = record.among | complete[:, np.newaxis]
        mixed = np.where(complete[:, np.newaxis], shares, record.shares)
        signed = transform(selector, probabilities, bag, PartialRecord(mixed, mixed, mixed, among))
        of_complete, whole = complete[bag], transform(selector, probabilities, bag, shares)
        part = transform(selector, probabilities, bag, record)
        assert_allclose(signed[of_complete], whole[of_complete], atol=1e-3)
        assert_allclose(signed[~of_complete], part[~of_complete], atol=1e-3)
        assert not np.array_equal(part[of_complete], whole[of_complete])

    def test_order_of_instances_bags_and_classes_does_not_matter(self, selector):
        probabilities, bag, labels = random_case()
        shares = shares_of(labels, bag)
        signed = transform(selector, probabilities, bag, partial(shares))
        rng = np.random.default_rng(1)
        rows, columns, bags = rng.permutation(len(bag)), [2, 0, 3, 1], rng.permutation(len(shares))
        moved = transform(
            selector,
            probabilities[np.ix_(rows, columns)],
            np.argsort(bags)[bag[rows]],
            partial(shares[np.ix_(bags, columns)], TUMOR[columns]),
        )
        assert_allclose(moved, signed[np.ix_(rows, columns)], atol=1e-3)

    def test_a_bag_predicted_without_these_classes_raises_nothing(self, selector):
        probabilities = np.full((5, 4), 0.001)
        probabilities[:, 2] = 0.997
        record = partial(np.full((1, 4), 0.25))
        signed = transform(selector, probabilities, np.zeros(5, int), record)
        assert np.isfinite(signed).all() and not (signed < 0).any()
        assert not signed[:, TUMOR].round().any()


@pytest.mark.parametrize("selector", SELECTORS[:3], **ids)
def test_target_is_the_recorded_share_of_what_is_predicted(selector):
    probabilities, bag, labels = random_case()
    record = partial(shares_of(labels, bag))
    predicted = shares_of(probabilities.argmax(axis=1), bag)
    target = record.shares * predicted[:, TUMOR].sum(axis=1, keepdims=True)
    target[:, ~TUMOR] = predicted[:, ~TUMOR]
    assert_array_equal(
        transform(selector, probabilities, bag, record),
        transform(selector, probabilities, bag, target),
    )


class TestTruth:
    def test_adaptive_labels_all_that_a_partial_record_supports(self):
        _, bag, labels = random_case()
        sure = np.eye(4)[labels]
        record = partial(shares_of(labels, bag))
        assert_array_equal(transform(AdaptiveSelector(), sure, bag, record), sure)
        assert not transform(NegativeSelector(), sure, bag, record).any()

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("kind", ["partial", "order"])
    @pytest.mark.parametrize(
        "selector", [AssignmentSelector(tolerance=2), SoftAssignmentSelector()], **ids
    )
    def test_labels_are_better_than_the_predictions(self, selector, kind, seed):
        """A net that takes one tumor class for another: the records say so, whatever the normal tissue."""
        probabilities, bag, labels = random_case(seed)
        probabilities = probabilities * [2, 1, 1, 1]
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        shares = shares_of(labels, bag)
        ranks = np.argsort(np.argsort(-shares, axis=1), axis=1) + 1
        record = partial(shares) if kind == "partial" else OrderRecord(ranks)
        found = transform(selector, probabilities, bag, record).argmax(axis=1)
        gain = (found == labels).mean() - (probabilities.argmax(axis=1) == labels).mean()
        assert gain > 0.05

    def test_labels_of_the_other_classes_stay_those_of_the_net(self):
        probabilities, bag, labels = random_case()
        signed = transform(
            AssignmentSelector(tolerance=2), probabilities, bag, partial(shares_of(labels, bag))
        )
        assert_array_equal(
            shares_of(signed.argmax(axis=1), bag)[:, 2],
            shares_of(probabilities.argmax(axis=1), bag)[:, 2],
        )


OPTIONS = {"degrees_of_freedom": 3.0, "temperature": 0.1}


class TestSoft:
    def posterior(self, record, deviation, **options):
        probabilities, bag, labels = random_case()
        scores = 0.3 * np.log(probabilities)
        record = record(shares_of(labels, bag))
        options = {**OPTIONS, **options}
        soft = posterior_labels(scores, bag, record, standard_deviation=deviation, **options)
        means = np.stack([soft[bag == b].mean(axis=0) for b in range(bag.max() + 1)])
        return means, record

    def test_a_record_that_is_believed_holds_among_its_classes(self):
        means, record = self.posterior(partial, 1e-4, degrees_of_freedom=1e9, n_renewals=8)
        inside = means[:, TUMOR] / means[:, TUMOR].sum(axis=1, keepdims=True)
        assert_allclose(inside, record.shares[:, TUMOR], atol=1e-3)

    def test_a_record_that_is_not_believed_changes_nothing(self):
        probabilities, bag, labels = random_case()
        scores = 0.3 * np.log(probabilities)
        record = partial(shares_of(labels, bag))
        soft = posterior_labels(scores, bag, record, standard_deviation=1e4, **OPTIONS)
        free = np.exp(scores / 0.1)
        assert_allclose(soft, free / free.sum(axis=1, keepdims=True), atol=1e-4)

    def test_an_order_that_is_believed_holds(self):
        def predominant(shares):
            return OrderRecord(np.where(shares == shares.max(axis=1, keepdims=True), 1, 2))

        means, record = self.posterior(predominant, 1e-3, degrees_of_freedom=1e9, n_renewals=8)
        first = (means * (record.ranks == 1)).sum(axis=1)
        assert (first >= means.max(axis=1) - 5e-3).all()

    def test_a_net_in_the_recorded_order_is_left_alone(self):
        probabilities, bag, _ = random_case()
        scores = 0.3 * np.log(probabilities)
        free = np.exp(scores / 0.1)
        free /= free.sum(axis=1, keepdims=True)
        means = np.stack([free[bag == b].mean(axis=0) for b in range(8)])
        record = OrderRecord(np.argsort(np.argsort(-means, axis=1), axis=1) + 1)
        soft = posterior_labels(scores, bag, record, standard_deviation=0.1, **OPTIONS)
        assert_allclose(soft, free, atol=1e-3)


def test_an_order_without_violations_gives_no_negative_label():
    probabilities, bag, _ = random_case()
    predicted = shares_of(probabilities.argmax(axis=1), bag)
    ranks = np.argsort(np.argsort(-predicted, axis=1, kind="stable"), axis=1) + 1
    assert not transform(NegativeSelector(), probabilities, bag, OrderRecord(ranks)).any()


def test_threshold_needs_no_record():
    probabilities, bag, labels = random_case()
    record = partial(shares_of(labels, bag))
    assert_array_equal(
        transform(ThresholdSelector(), probabilities, bag, record),
        transform(ThresholdSelector(), probabilities, bag, None),
    )


def test_bags_hand_over_their_record():
    probabilities, bag, labels = random_case()
    shares = shares_of(labels, bag)
    inside = partial(shares).shares[:, TUMOR]
    bags = Bags(probabilities, bag, inside, among=["a", "b", "d"])
    recorded = bags.with_classes(np.array(["a", "b", "c", "d"])).recorded
    assert_array_equal(
        transform(AdaptiveSelector(), probabilities, bag, recorded),
        transform(AdaptiveSelector(), probabilities, bag, partial(shares)),
    )


def test_a_record_of_other_bags_or_classes_is_refused():
    probabilities, bag, _ = random_case()
    for shape in ((7, 4), (8, 3)):
        with pytest.raises(ValueError, match="record of shape"):
            transform(AdaptiveSelector(), probabilities, bag, OrderRecord(np.ones(shape, int)))


def test_what_needs_all_shares_says_so():
    refuse_weak_records(None, "X")
    with pytest.raises(ValueError, match=r"MixBag needs .* only an order of classes is recorded"):
        refuse_weak_records(OrderRecord(np.array([[1, 2]])), "MixBag")
    with pytest.raises(ValueError, match="only shares among some classes are recorded"):
        refuse_weak_records(partial(np.full((1, 4), 0.25)), "MixBag")
