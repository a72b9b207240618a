"""Partial records and orders of classes: what they admit, and how bags hold them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.isotonic import IsotonicRegression

from proportion_ssl import Bags, NegativePseudoLabelClassifier, RobustProportionClassifier
from proportion_ssl.baselines import (
    MeanMapClassifier,
    MixBag,
    ProportionLossClassifier,
    ProportionSVMClassifier,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import OrderRecord, PartialRecord
from proportion_ssl.proportions.bags import check_bags

CLASSES = np.array(["acinar", "normal", "solid", "stroma"])
TUMOR = ["acinar", "solid"]


def slides(n_bags=2):
    return [np.full((3, 2), float(bag)) for bag in range(n_bags)]


def random_truth(n_bags=200, n_classes=5, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(n_classes, 0.6), n_bags)


def partial(shares, among):
    """Exact partial record of true shares of all classes."""
    mask = np.broadcast_to(among, shares.shape)
    inside = np.where(mask, shares, 0.0)
    inside = inside / inside.sum(axis=1, keepdims=True)
    return PartialRecord(inside, inside, inside, mask)


class TestPartialBags:
    def test_shares_of_named_classes_once_all_classes_are_known(self):
        bags = Bags(slides(), proportions=[[0.3, 0.7], [1.0, 0.0]], among=["solid", "acinar"])
        record = bags.with_classes(CLASSES).record
        assert_array_equal(record.shares, [[0.7, 0, 0.3, 0], [0, 0, 1, 0]])
        assert_array_equal(record.among, [[True, False, True, False]] * 2)
        assert_array_equal(record.lower, record.upper)

    def test_bounds_and_example_admit_any_share_of_the_others(self):
        bags = Bags(slides(1), proportions=[[0.3, 0.7]], among=TUMOR).with_classes(CLASSES)
        assert_array_equal(bags.lower, [[0, 0, 0, 0]])
        assert_array_equal(bags.upper, [[0.3, 1, 0.7, 1]])
        assert_allclose(bags.proportions, [[0.1, 1 / 3, 0.7 / 3, 1 / 3]])

    @pytest.mark.parametrize("error", [{}, {"rounding_step": 0.1}, {"standard_deviation": 0.05}])
    def test_shares_among_all_classes_are_a_complete_record(self, error):
        shares = random_truth(6, 4).round(1)
        shares[:, 0] += 1 - shares.sum(axis=1)
        shares = np.abs(shares)
        shares /= shares.sum(axis=1, keepdims=True)
        partial_bags = Bags(slides(6), proportions=shares, among=CLASSES, **error)
        full = Bags(slides(6), proportions=pd.DataFrame(shares, columns=CLASSES), **error)
        partial_bags, full = partial_bags.with_classes(CLASSES), full.with_classes(CLASSES)
        assert partial_bags.record is None
        for name in ("proportions", "lower", "upper", "recorded"):
            assert_array_equal(getattr(partial_bags, name), getattr(full, name))

    def test_complete_and_partial_records_in_one_table(self):
        table = pd.DataFrame(
            {"solid": [0.25, 0.0, 0.4], "normal": [np.nan, 1, 0.2], "acinar": [0.75, 0, 0.4]},
            index=["x", "healthy", "y"],
        )
        bags = Bags(slides(3), ["healthy", "x", "y"], table, among=TUMOR)
        bags = bags.with_classes(np.array(["acinar", "normal", "solid"]))
        assert_array_equal(bags.record.among.all(axis=1), [True, False, True])
        assert_array_equal(bags.lower, [[0, 1, 0], [0, 0, 0], [0.4, 0.2, 0.4]])
        assert_array_equal(bags.upper, [[0, 1, 0], [0.75, 1, 0.25], [0.4, 0.2, 0.4]])
        predicted = np.array([[0.2, 0.6, 0.2]] * 3)
        expected = [[0, 1, 0], [0.3, 0.6, 0.1], [0.4, 0.2, 0.4]]
        assert_allclose(bags.nearest(predicted), expected)

    def test_intervals_and_shares_left_out(self):
        bags = Bags(slides(1), proportions=[[0.7, 0.3]], among=TUMOR, rounding_step=0.2)
        record = bags.with_classes(CLASSES).record
        assert_allclose(record.lower, [[0.6, 0, 0.2, 0]])
        assert_allclose(record.upper, [[0.8, 0, 0.4, 0]])
        missing = Bags(slides(1), proportions=[[0.7, np.nan]], among=TUMOR).with_classes(CLASSES)
        assert_allclose(missing.record.shares, [[0.7, 0, 0.3, 0]])

    def test_several_readers(self):
        readings = [[[0.6, 0.4]], [[0.8, 0.2]]]
        bags = Bags(slides(1), proportions=readings, among=TUMOR).with_classes(CLASSES)
        assert_allclose(bags.record.lower, [[0.6, 0, 0.2, 0]])
        assert_allclose(bags.record.upper, [[0.8, 0, 0.4, 0]])

    def test_records_go_along_with_selected_and_transformed_bags(self):
        shares = [[0.3, 0.7], [1.0, 0.0], [0.5, 0.5]]
        bags = Bags(slides(3), ["x", "y", "z"], shares, among=TUMOR)
        late = bags.select(["z", "x"]).with_classes(CLASSES)
        early = bags.with_classes(CLASSES).select(["z", "x"])
        again = check_bags((bags.X + 1,), bags, CLASSES).select(["z", "x"])
        split = check_bags(slides(3), bags, CLASSES).select(["z", "x"])
        for each in (late, early, again, split):
            assert_array_equal(each.record.shares, [[0.5, 0, 0.5, 0], [0.3, 0, 0.7, 0]])
            assert_array_equal(each.upper, [[0.5, 1, 0.5, 1], [0.3, 1, 0.7, 1]])

    def test_new_proportions_replace_the_record(self):
        bags = Bags(slides(), proportions=[[0.3, 0.7], [1.0, 0.0]], among=TUMOR)
        bags = check_bags(bags, [[0.1, 0.2, 0.3, 0.4]] * 2, CLASSES)
        assert bags.record is None
        assert_array_equal(bags.recorded, [[0.1, 0.2, 0.3, 0.4]] * 2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"proportions": [[0.5, 0.5]], "among": ["a"]}, "2 columns, but among names 1 classes"),
            ({"proportions": [[0.5, 0.5]], "among": ["a", "a"]}, "'a' is given more than once"),
            ({"proportions": [[0.3, 0.3]], "among": TUMOR}, "sum to 0.6"),
            ({"among": TUMOR}, "among is given without proportions"),
            (
                {"proportions": pd.DataFrame({"a": [1.0]}), "among": ["a", "b"]},
                "among names 'b', which has no column",
            ),
            (
                {"proportions": pd.DataFrame({"Solid": [1.0]}), "among": ["solid", "acinar"]},
                r"among names 'solid', which has no column .* Did you mean 'Solid'\?",
            ),
        ],
    )
    def test_wrong_input(self, options, message):
        with pytest.raises(ValueError, match=message):
            Bags(slides(1), **options)

    def test_a_complete_record_needs_every_class(self):
        table = pd.DataFrame({"solid": [0.5, 0.5], "acinar": [0.5, 0.1], "normal": [np.nan, 0.4]})
        bags = Bags(slides(), proportions=table, among=TUMOR)
        with pytest.raises(ValueError, match="Class 'stroma' has no column"):
            bags.with_classes(CLASSES)

    def test_a_bag_without_any_share(self):
        table = pd.DataFrame({"solid": [np.nan], "acinar": np.nan, "normal": np.nan})
        with pytest.raises(ValueError, match="state"):
            Bags(slides(1), proportions=table, among=TUMOR)


class TestPartialRecord:
    def test_true_shares_are_admitted(self):
        truth = random_truth()
        record = partial(truth, [True, True, False, True, False])
        shares, lower, upper = record.bounds()
        assert (lower <= truth).all() and (truth <= upper + 1e-12).all()
        assert_allclose(shares.sum(axis=1), 1)
        assert_allclose(record.nearest(truth), truth)

    def test_expected_shares_sum_to_one_and_leave_the_others_alone(self):
        predicted = random_truth(seed=1)
        among = np.array([True, True, False, True, False])
        expected = partial(random_truth(), among).nearest(predicted)
        assert_allclose(expected.sum(axis=1), 1)
        assert_array_equal(expected[:, ~among], predicted[:, ~among])
        ratio = expected[:, among] / expected[:, among].sum(axis=1, keepdims=True)
        assert_allclose(ratio, partial(random_truth(), among).shares[:, among])

    def test_a_bag_without_these_classes_expects_none(self):
        record = partial(np.array([[0.5, 0.25, 0.25]]), [True, True, False])
        assert_array_equal(record.nearest(np.array([[0.0, 0.0, 1.0]])), [[0, 0, 1]])


def order_of(ranks, predicted):
    """Isotonic regression of one bag by scikit-learn: classes that are not named follow by prediction."""
    order = np.lexsort((-predicted, ranks))
    fitted = IsotonicRegression(increasing=False).fit_transform(
        np.arange(len(order)), predicted[order]
    )
    nearest = np.empty(len(order))
    nearest[order] = fitted
    return nearest


def random_ranks(rng, n_bags, n_classes):
    ranks = np.empty((n_bags, n_classes), dtype=int)
    for bag in range(n_bags):
        n_named = rng.integers(1, n_classes + 1)
        ranks[bag] = n_named + 1
        ranks[bag, rng.permutation(n_classes)[:n_named]] = np.arange(1, n_named + 1)
    return ranks


class TestOrderRecord:
    def test_nearest_shares_are_an_isotonic_regression(self):
        rng, predicted = np.random.default_rng(0), random_truth(300)
        ranks = random_ranks(rng, *predicted.shape)
        expected = [order_of(*of_bag) for of_bag in zip(ranks, predicted, strict=True)]
        assert_allclose(OrderRecord(ranks).nearest(predicted), expected, atol=1e-12)

    def test_no_other_shares_in_this_order_are_nearer(self):
        rng, predicted = np.random.default_rng(1), random_truth(40)
        ranks = random_ranks(rng, *predicted.shape)
        distance = ((OrderRecord(ranks).nearest(predicted) - predicted) ** 2).sum(axis=1)
        for _ in range(300):
            others = -np.sort(-rng.dirichlet(np.ones(5), len(ranks)), axis=1)
            place = np.argsort(np.lexsort((rng.random(ranks.shape), ranks), axis=1), axis=1)
            others = np.take_along_axis(others, place, axis=1)
            assert (((others - predicted) ** 2).sum(axis=1) >= distance - 1e-12).all()

    def test_predominant_class_meets_those_predicted_above_it(self):
        record = OrderRecord(np.array([[2, 1, 2, 2]]))
        assert_allclose(record.nearest(np.array([[0.5, 0.1, 0.3, 0.1]])), [[0.3, 0.3, 0.3, 0.1]])

    def test_all_shares_within_the_intervals_are_in_the_order(self):
        rng, predicted = np.random.default_rng(2), random_truth(100)
        ranks = random_ranks(rng, *predicted.shape)
        lower, upper = OrderRecord(ranks).ends(predicted)
        for _ in range(20):
            shares = lower + rng.random(lower.shape) * (upper - lower)
            before = ranks[:, :, np.newaxis] < ranks[:, np.newaxis]
            assert not (before & (shares[:, :, np.newaxis] < shares[:, np.newaxis] - 1e-12)).any()

    def test_predictions_in_the_order_are_left_alone(self):
        truth = random_truth(100)
        ranks = np.argsort(np.argsort(-truth, axis=1), axis=1) + 1
        for n_named in (1, 3, 5):
            record = OrderRecord(np.minimum(ranks, n_named + 1))
            assert_allclose(record.nearest(truth), truth)
            shares, lower, upper = record.bounds()
            assert (lower <= truth).all() and (truth <= upper).all()
            assert_allclose(shares.sum(axis=1), 1)

    def test_bounds_are_reached(self):
        """Of three classes the first, then the second: the extreme shares are those of equal first ones."""
        _, lower, upper = OrderRecord(np.array([[1, 2, 3]])).bounds()
        corners = np.array([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
        assert_allclose(lower, [corners.min(axis=0)])
        assert_allclose(upper, [corners.max(axis=0)])


class TestFromPredominant:
    def test_class_or_order_by_bag(self):
        named = pd.Series({"y": ["solid", "acinar"], "x": "normal"})
        bags = Bags.from_predominant(slides(), ["x", "y"], named, classes=CLASSES)
        assert_array_equal(bags.record.ranks, [[2, 1, 2, 2], [2, 3, 1, 3]])
        assert_allclose(bags.lower, [[0, 0.25, 0, 0], [0, 0, 0.25, 0]])
        assert_allclose(bags.upper, [[0.5, 1, 0.5, 0.5], [0.5, 1 / 3, 1, 1 / 3]])

    def test_columns_follow_the_classes_of_a_classifier(self):
        bags = Bags.from_predominant(slides(), predominant=["b", "c"], classes=["c", "a", "b"])
        bags = bags.with_classes(np.array(["a", "b", "c"])).select([1])
        assert_array_equal(bags.record.ranks, [[2, 2, 1]])
        assert_array_equal(bags.upper, [[0.5, 0.5, 1]])

    @pytest.mark.parametrize(
        ("predominant", "message"),
        [
            (["a"], "1 entries, but there are 2 bags"),
            (["a", "d"], "class 'd' for bag 1; name one of a, b, c"),
            (["a", []], "no class for bag 1"),
            (["a", ["b", "b"]], "has a class of bag 1 twice"),
            (None, "predominant is missing"),
            (pd.Series({0: "a"}), "no entry for bag 1"),
        ],
    )
    def test_wrong_input(self, predominant, message):
        with pytest.raises(ValueError, match=message):
            Bags.from_predominant(slides(), predominant=predominant, classes=["a", "b", "c"])

    def test_bags_in_another_order_than_their_names(self):
        X = np.zeros((2, 1))
        with pytest.warns(UserWarning, match="The rows of predominant"):
            Bags.from_predominant(X, ["y", "x"], ["a", "b"], classes=["a", "b"])


class TestFits:
    """Labeled patches of three slides, and bags with what is recorded of them."""

    DATA = make_bags(
        n_bags=16, class_separation=1.1, slide_shift=1.3, n_labeled_slides=3, random_state=1
    )

    def weak(self, kind):
        bags, shares = self.DATA.bags, self.DATA.bags.proportions
        if kind == "predominant":
            return Bags.from_predominant(
                bags.X, bags.index, shares.argmax(axis=1), classes=range(4)
            )
        among = shares[:, :3].sum(axis=1)
        table = shares.copy()
        table[among > 0, 3] = np.nan
        table[among > 0, :3] /= among[among > 0, np.newaxis]
        return Bags(bags.X, bags.index, pd.DataFrame(table), among=[0, 1, 2])

    def score(self, clf, bags):
        clf = clone(clf).fit(self.DATA.X_labeled, self.DATA.y, bags)
        return clf.score(self.DATA.X_test, self.DATA.y_test)

    @pytest.mark.parametrize("kind", ["partial", "predominant"])
    def test_they_teach_what_labeled_patches_do_not(self, kind):
        clf = NegativePseudoLabelClassifier(max_epochs=8, random_state=0)
        assert self.score(clf, self.weak(kind)) > self.score(clf, None) + 0.1

    @pytest.mark.parametrize("kind", ["partial", "predominant"])
    @pytest.mark.filterwarnings("ignore::proportion_ssl.proportions.IdentifiabilityWarning")
    def test_where_complete_records_teach_nothing_they_do_no_harm(self, kind):
        clf = RobustProportionClassifier(random_state=0)
        assert self.score(clf, self.weak(kind)) > self.score(clf, self.DATA.bags) - 0.02

    @pytest.mark.parametrize(
        "clf",
        [
            MeanMapClassifier(),
            ProportionSVMClassifier(max_iter=2),
            ProportionLossClassifier(augmentation=MixBag(), max_epochs=1),
        ],
        ids=lambda clf: type(clf).__name__,
    )
    @pytest.mark.parametrize("kind", ["partial", "predominant"])
    def test_what_needs_all_shares_refuses_them(self, clf, kind):
        with pytest.raises(ValueError, match="needs the share of every class in each bag"):
            clf.fit(self.DATA.X_labeled, self.DATA.y, self.weak(kind))
