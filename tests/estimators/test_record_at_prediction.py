"""Predictions of the instances of bags whose proportions are recorded."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    mean_iou_score,
)
from proportion_ssl.baselines import MeanMapClassifier, ProportionSVMClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import robust_proportion
from proportion_ssl.estimators._learners import share_exchanged
from proportion_ssl.heads import DiscriminantClassifier
from proportion_ssl.pseudo_labels import probabilities_given_records

DATA = make_bags(
    n_bags=20,
    bag_size=40,
    n_test_slides=8,
    class_separation=0.5,
    slide_shift=0.7,
    random_state=0,
)
NAMES = np.array(["c1", "c2", "c3", "c4"])
IDS = np.array([f"slide {g}" for g in DATA.groups_test])
SLIDES = np.unique(IDS)
SHARES = np.array([(np.eye(4)[DATA.y_test[s == IDS]]).mean(axis=0) for s in SLIDES])
TABLE = pd.DataFrame(SHARES, index=SLIDES, columns=NAMES)


@pytest.fixture(scope="module")
def clf():
    clf = NegativePseudoLabelClassifier(DiscriminantClassifier(), random_state=0)
    return clf.fit(DATA.X_labeled, NAMES[DATA.y], classed(DATA.bags))


def classed(bags):
    table = pd.DataFrame(bags.proportions, columns=NAMES)
    return Bags(bags.X, bags.index, table)


def given(clf, records, ids=IDS, X=DATA.X_test):
    return clf.predict_proba(X, bag_ids=ids, bag_proportions=records)


def test_kinds_of_records_say_the_same(clf):
    expected = given(clf, SHARES)
    assert np.abs(expected - clf.predict_proba(DATA.X_test)).max() > 0.1
    assert_allclose(expected.sum(axis=1), 1)
    shuffled = TABLE.iloc[::-1][["c3", "c1", "c4", "c2"]]
    more = pd.concat([shuffled, shuffled.rename(index=lambda name: f"other {name}")])
    bags = Bags(np.zeros((8, 1)), SLIDES, TABLE)
    further = Bags(np.zeros((16, 1)), more.index.to_numpy(), more)
    for records in (shuffled, more, bags, further, SHARES.tolist()):
        assert_allclose(given(clf, records), expected, atol=1e-12)
    assert_array_equal(
        clf.predict(DATA.X_test, bag_ids=IDS, bag_proportions=more),
        NAMES[expected.argmax(axis=1)],
    )
    logs = clf.predict_log_proba(DATA.X_test, bag_ids=IDS, bag_proportions=bags)
    assert_allclose(np.exp(logs), expected, atol=1e-12)


def test_order_of_the_instances_and_other_bags_do_not_matter(clf):
    expected = given(clf, TABLE)
    order = np.random.default_rng(0).permutation(len(IDS))
    assert_allclose(given(clf, TABLE, IDS[order], DATA.X_test[order]), expected[order], atol=1e-5)
    one = SLIDES[3] == IDS
    assert_allclose(given(clf, TABLE, IDS[one], DATA.X_test[one]), expected[one], atol=1e-5)


def test_one_bag_needs_no_ids(clf):
    one = SLIDES[2] == IDS
    expected = given(clf, TABLE, IDS[one], DATA.X_test[one])
    bags = Bags(np.zeros((1, 1)), [SLIDES[2]], TABLE.iloc[[2]])
    reordered = TABLE.iloc[2, ::-1]  # a Series, by class
    readers = [TABLE.iloc[[2], ::-1], TABLE.iloc[[2]]]
    listed = SHARES[2].tolist()
    for record in (
        *(
            SHARES[2],
            SHARES[[2]],
            listed,
            [listed],
            TABLE.iloc[[2]],
            bags,
            TABLE.iloc[2],
            reordered,
        ),
        *(readers, np.stack([SHARES[[2]], SHARES[[2]]])),
    ):
        found = clf.predict_proba(DATA.X_test[one], bag_proportions=record)
        assert_allclose(found, expected, atol=1e-12)


def test_intervals_move_less_and_wide_ones_not_at_all(clf):
    plain = clf.predict_proba(DATA.X_test)
    moved = []
    for reach in (0.0, 0.1, 1.0):
        ends = {
            "lower": (TABLE - reach).clip(0, 1),
            "upper": (TABLE + reach).clip(0, 1),
        }
        found = given(clf, Bags(np.zeros((8, 1)), SLIDES, TABLE, **ends))
        moved.append(np.abs(found - plain).mean())
    assert moved[0] > moved[1] > 0.001
    assert moved[2] < 1e-5


def test_records_that_say_less(clf):
    """Shares among three classes, or the predominant class alone; the fourth is left to the prediction."""
    among = TABLE[["c1", "c2", "c3"]].div(TABLE[["c1", "c2", "c3"]].sum(axis=1), axis=0)
    partial = Bags(np.zeros((8, 1)), SLIDES, among.assign(c4=np.nan), among=["c1", "c2", "c3"])
    predominant = Bags.from_predominant(
        np.zeros((8, 1)), SLIDES, TABLE.idxmax(axis=1), classes=NAMES
    )
    plain, exact = clf.predict_proba(DATA.X_test), given(clf, TABLE)

    def error(probabilities):
        shares = np.array([probabilities[slide == IDS].mean(axis=0) for slide in SLIDES])
        return np.abs(shares - SHARES).sum()

    for bags in (partial, predominant):
        found = given(clf, bags)
        assert error(exact) < error(found) < error(plain)
        next_ids = np.roll(SLIDES, 1)[np.unique(IDS, return_inverse=True)[1]]
        other = given(clf, bags, next_ids)
        assert np.abs(other - plain).max() > 0.05


@pytest.mark.parametrize(
    ("records", "ids", "message"),
    [
        (TABLE.drop(index=SLIDES[4]), IDS, f"{SLIDES[4]}"),
        (
            Bags(np.zeros((7, 1)), SLIDES[1:], TABLE.iloc[1:]),
            IDS,
            f"no record of bag '{SLIDES[0]}'",
        ),
        (SHARES[:7], IDS, "7"),
        (SHARES[:, :3] + SHARES[:, 3:] / 3, IDS, "3 columns"),
        (TABLE[["c1", "c2"]].assign(c4=TABLE.c3 + TABLE.c4), IDS, "Class 'c3' has no column"),
        (TABLE, IDS[:-1], r"bag_ids has shape \(319,\), but there are 320 instances"),
        (None, IDS, "bag_ids is given without bag_proportions"),
        (SHARES, None, "records of 8 bags; give bag_ids"),
        (TABLE, None, "records of 8 bags"),
        (TABLE * 2, IDS, "slide"),
    ],
)
def test_what_does_not_fit_together_is_named(clf, records, ids, message):
    with pytest.raises(ValueError, match=message):
        clf.predict_proba(DATA.X_test, bag_ids=ids, bag_proportions=records)


def test_without_records_nothing_changes(clf):
    """The very numbers of the net."""
    expected = clf.estimator_.predict_proba(DATA.X_test.astype(np.float32))
    assert_array_equal(clf.predict_proba(DATA.X_test), expected)
    assert_array_equal(clf.predict(DATA.X_test), NAMES[expected.argmax(axis=1)])


def test_a_record_that_agrees_changes_nothing(clf):
    plain = clf.predict_proba(DATA.X_test).astype(np.float64)
    agreeing = np.array([plain[slide == IDS].mean(axis=0) for slide in SLIDES])
    assert_allclose(given(clf, agreeing), plain, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        NegativePseudoLabelClassifier(max_epochs=15, random_state=0),
        NegativePseudoLabelClassifier(DiscriminantClassifier(), random_state=0),
        RobustProportionClassifier(random_state=0),
        MeanMapClassifier(),
        ProportionSVMClassifier(random_state=0),
    ],
    ids=["net", "discriminant", "robust", "mean map", "svm"],
)
def test_exact_records_help(model):
    model.fit(DATA.X_labeled, NAMES[DATA.y], classed(DATA.bags))
    truth = NAMES[DATA.y_test]
    before = mean_iou_score(truth, model.predict(DATA.X_test))
    informed = model.predict(DATA.X_test, bag_ids=IDS, bag_proportions=TABLE)
    assert mean_iou_score(truth, informed) > before + 0.01


def test_deviation_of_the_fit_is_used():
    exact = RobustProportionClassifier(random_state=0).fit(
        DATA.X_labeled, NAMES[DATA.y], classed(DATA.bags)
    )
    assert 0.01 <= exact.record_deviation_ <= 0.1
    plain = exact.predict_proba(DATA.X_test)
    index = np.searchsorted(SLIDES, IDS)
    expected = probabilities_given_records(
        *(plain, index, SHARES, SHARES),
        standard_deviation=exact.record_deviation_,
        instance_weight=exact.instance_weight_,
    )
    assert_allclose(given(exact, TABLE), expected)
    moved = []
    for deviation in (0.01, 0.05, 0.5):
        exact.record_deviation_ = deviation
        moved.append(np.abs(given(exact, TABLE) - plain).mean())
    assert moved[0] > moved[1] > moved[2]


def test_the_more_predictions_count_the_less_a_record_moves():
    rng = np.random.default_rng(0)
    plain = rng.dirichlet(np.full(3, 0.8), 50)
    one_bag, record = np.zeros(50, dtype=int), np.array([[0.2, 0.5, 0.3]])
    moved = [
        np.abs(
            probabilities_given_records(plain, one_bag, record, record, instance_weight=w) - plain
        ).sum()
        for w in (0.1, 0.3, 1.0, 100.0)
    ]
    assert moved == sorted(moved, reverse=True) and moved[-1] < 0.05 * moved[0]


def test_fit_lets_cautious_probabilities_count_for_more():
    """The larger temperature makes probabilities less sure, not the record more important."""
    model = RobustProportionClassifier(random_state=0).fit(
        DATA.X_labeled, NAMES[DATA.y], classed(DATA.bags)
    )
    assert model.instance_weight_ >= 0.3
    alone = RobustProportionClassifier(random_state=0).fit(DATA.X_labeled, NAMES[DATA.y])
    assert alone.instance_weight_ == 0.3


def test_wrong_records_of_the_fit_let_predictions_count_for_more(monkeypatch):
    """Twice as much if a fifth of the records are wrong, other things being equal."""
    shares = DATA.bags.proportions.copy()
    shares[:3] = shares[:3, ::-1]
    wrong = Bags(DATA.bags.X, DATA.bags.index, pd.DataFrame(shares, columns=NAMES))
    model, weights = RobustProportionClassifier(random_state=0), []
    for factor in (0.0, 5.0):
        monkeypatch.setattr(robust_proportion, "WEIGHT_OF_DOUBT", factor)
        weights.append(model.fit(DATA.X_labeled, NAMES[DATA.y], wrong).instance_weight_)
    table = model.bag_reliability_.loc[wrong.names]
    supported = table[[f"supported_{name}" for name in NAMES]].to_numpy()
    share = min(table["doubtful"].mean(), share_exchanged(supported, shares, shares))
    assert share > 0
    assert weights[1] == pytest.approx(weights[0] * (1 + 5 * share))


def test_errors_of_the_classifier_are_not_taken_for_wrong_records():
    """Classes that can hardly be told apart: records are doubtful, but nearer than those of other bags."""
    found = []
    for seed in range(4):
        data = make_bags(n_bags=100, class_separation=1, slide_shift=1.5, random_state=seed)
        model = RobustProportionClassifier(random_state=0).fit(
            data.X_labeled, data.y, data.bags, groups=data.groups
        )
        table = model.bag_reliability_
        supported, recorded = (table.filter(like=name) for name in ("supported_", "recorded_"))
        share = share_exchanged(*(part.to_numpy() for part in (supported, recorded, recorded)))
        found.append((table["doubtful"].mean(), share))
    doubtful, share = np.mean(found, axis=0)
    assert doubtful > 0.1 and share < 0.5 * doubtful


def test_share_of_exchanged_records():
    """Right on average, whether proportions are predicted well or not."""
    rng = np.random.default_rng(0)
    for noise, share in product((0.0, 0.1), (0.0, 0.2, 0.5)):
        found = []
        for _ in range(60):
            recorded = rng.dirichlet(np.ones(4), 100)
            predicted = np.abs(recorded + noise * rng.normal(size=recorded.shape))
            predicted /= predicted.sum(axis=1, keepdims=True)
            n = round(share * 100)
            recorded[:n] = recorded[rng.permutation(n)]
            found.append(share_exchanged(predicted, recorded, recorded))
        assert np.mean(found) == pytest.approx(share, abs=0.04)
    same = np.tile(recorded[:1], (100, 1))
    assert (
        share_exchanged(predicted, same, same) > 0.8
    )  # equal records have nothing to do with bags


def test_records_that_admit_everything_do_not_make_others_wrong():
    rng = np.random.default_rng(0)
    predicted = rng.dirichlet(np.ones(4), 100)
    recorded = np.abs(predicted + 0.03 * rng.normal(size=predicted.shape))
    recorded /= recorded.sum(axis=1, keepdims=True)
    lower, upper = recorded.copy(), recorded.copy()
    lower[:60], upper[:60] = 0, 1
    assert share_exchanged(predicted, lower, upper) == 0


def test_large_bags_move_as_small_ones_do():
    """5000 patches of a slide are no more evidence against the record than 60."""
    rng = np.random.default_rng(0)
    few = rng.dirichlet(np.full(3, 0.8), 60)
    record = np.array([[0.2, 0.5, 0.3]])

    def moved(probabilities):
        one_bag = np.zeros(len(probabilities), dtype=int)
        return probabilities_given_records(probabilities, one_bag, record, record)[:60]

    small = moved(few)
    assert np.abs(small - few).max() > 0.05
    for times in (10, 83):
        assert_allclose(moved(np.tile(few, (times, 1))), small, atol=1e-3)
    six = few[:6]
    by_size = [np.abs(moved(np.tile(six, (times, 1)))[:6] - six).mean() for times in (1, 3, 10)]
    assert by_size[0] > by_size[1] > by_size[2]  # below that, more patches are more evidence


def test_a_record_of_another_slide_moves_less_than_one_that_is_near():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([8, 1, 1], 60)
    one_bag, mean = np.zeros(60, dtype=int), probabilities.mean(axis=0)
    near, far = mean + [-0.1, 0.1, 0], np.array([0.0, 0.0, 1.0])

    def pull(record):
        given = probabilities_given_records(probabilities, one_bag, *[record[np.newaxis]] * 2)
        way = record - mean
        return (given.mean(axis=0) - mean) @ way / (way @ way)

    assert 0 < pull(far) < 0.5 * pull(near) < 0.5


def test_certain_predictions_stay_finite():
    certain = np.eye(2)[[0] * 5 + [1]]
    given = probabilities_given_records(certain, np.zeros(6, int), *[np.array([[0.5, 0.5]])] * 2)
    assert np.isfinite(given).all()
    assert_allclose(given.sum(axis=1), 1)
    assert_array_equal(given.argmax(axis=1), certain.argmax(axis=1))


# --- in scikit-learn's tools ------------------------------------------------------------------------


def test_in_a_pipeline():
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(StandardScaler(), RobustProportionClassifier(random_state=0))
        model.fit(DATA.X_labeled, NAMES[DATA.y])
        plain = model.predict_proba(DATA.X_test)
        informed = model.predict_proba(DATA.X_test, bag_ids=IDS, bag_proportions=TABLE)
        assert np.abs(informed - plain).max() > 0.01
        expected = probabilities_given_records(plain, np.searchsorted(SLIDES, IDS), SHARES, SHARES)
        assert_allclose(informed, expected)
        labels = model.predict(DATA.X_test, bag_ids=IDS, bag_proportions=TABLE)
        assert_array_equal(labels, NAMES[expected.argmax(axis=1)])


def test_cross_validated_predictions_are_made_without_records():
    """scikit-learn hands metadata to the fits alone, where the proportions are those of the bags."""
    with sklearn.config_context(enable_metadata_routing=True):
        found = cross_val_predict(
            RobustProportionClassifier(random_state=0),
            DATA.X_labeled,
            DATA.y,
            cv=3,
            method="predict_proba",
            params={"X_bags": DATA.bags},
        )
    assert found.shape == (len(DATA.y), 4)
    assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_readers_of_different_bags():
    """Tables of several readers, who read some of the bags each."""
    first, second = TABLE.iloc[:6], TABLE.iloc[4:]
    model = RobustProportionClassifier(random_state=0).fit(DATA.X_labeled, NAMES[DATA.y])
    bags = Bags(np.zeros((8, 1)), SLIDES, [first, second])
    assert_allclose(given(model, [first, second]), given(model, bags), atol=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bags_named_true_and_false():
    rows = np.flatnonzero(DATA.bags.index < 2)
    index = DATA.bags.index[rows]
    shares = DATA.bags.proportions[:2]
    fits = [
        RobustProportionClassifier(random_state=0).fit(
            DATA.X_labeled, DATA.y, Bags(DATA.bags.X[rows], names, shares)
        )
        for names in (index, index.astype(bool))
    ]
    assert fits[0].instance_weight_ == fits[1].instance_weight_
    assert set(fits[1].bag_reliability_.index) == {False, True}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_class_of_less_than_one_patch_is_not_told_by_bags():
    """Its mean would be extrapolated by the inverse of its share, to a singular covariance."""
    rng = np.random.default_rng(0)
    y, means = np.repeat([1, 2], 10), rng.normal(size=(3, 40))
    X, X_bags = (
        means[y] + rng.normal(size=(20, 40)),
        means[[1] * 39 + [2]] + rng.normal(size=(40, 40)),
    )
    table = pd.DataFrame([[1e-5, 0.98 - 1e-5, 0.02]], columns=[0, 1, 2])
    model = RobustProportionClassifier(random_state=0).fit(
        X, y, Bags(X_bags, np.zeros(40, int), table)
    )
    assert (model.predict(X_bags) == [1] * 39 + [2]).mean() > 0.95


@pytest.mark.parametrize("empty", [[], (), np.empty((0, 4)), pd.DataFrame()])
def test_empty_records_are_refused(empty):
    model = RobustProportionClassifier(random_state=0).fit(DATA.X_labeled, NAMES[DATA.y])
    with pytest.raises(ValueError, match="bag_proportions is empty"):
        model.predict(DATA.X_labeled, bag_ids=np.zeros(len(DATA.y)), bag_proportions=empty)


def test_rows_of_other_bags_are_shown():
    """Numbers as ids and texts in the table are not the same."""
    model = RobustProportionClassifier(random_state=0).fit(DATA.X_labeled, NAMES[DATA.y])
    table = pd.DataFrame([[0.25] * 4, [0.1, 0.2, 0.3, 0.4]], ["0", "1"], NAMES)
    with pytest.raises(ValueError, match=r"Bag 0 has no row .* whose rows are '0', '1'"):
        model.predict(DATA.X_labeled, bag_ids=np.zeros(len(DATA.y), int), bag_proportions=table)
