"""Labeled patches and bags in different units, and messages that name the bag."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from proportion_ssl import Bags, RobustProportionClassifier
from proportion_ssl.baselines import MeanMapClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import HarmfulLabelsWarning
from proportion_ssl.estimators._alike import (
    are_scaled_differently,
    check_features,
    has_outliers,
    have_other_signs,
)

DATA = make_bags(n_bags=12, bag_size=20, n_features=12, slide_shift=0.5, random_state=0)


def moved(times, plus):
    bags = DATA.bags
    return Bags(bags.X * times + plus, bags.index, bags.proportions)


@pytest.mark.parametrize(("times", "plus"), [(1, 20), (20, 0), (0.05, 0), (20, 50)])
def test_bags_in_other_units(times, plus):
    with pytest.warns(UserWarning, match=r"unlike those of the labeled patches.*transform_input"):
        check_features(DATA.X_labeled, DATA.y, moved(times, plus))


@pytest.mark.parametrize(("times", "plus"), [(1, 0), (1, 2), (3, 0), (0.4, 1)])
def test_bags_of_another_stain_are_no_cause_for_a_warning(times, plus):
    check_features(DATA.X_labeled, DATA.y, moved(times, plus))


def test_few_patches_and_constant_features_say_nothing():
    check_features(DATA.X_labeled[:9], DATA.y[:9], moved(20, 50))
    are_scaled_differently(np.ones((20, 12)), moved(20, 50).X)


def test_a_pipeline_that_forgets_the_bags():
    raw = DATA.X_labeled * 20 + 50
    pipeline = make_pipeline(StandardScaler(), RobustProportionClassifier(random_state=0))
    with (
        pytest.warns(UserWarning, match="transform_input"),
        pytest.warns(HarmfulLabelsWarning),
    ):
        pipeline.fit(raw, DATA.y, robustproportionclassifier__X_bags=moved(20, 50))
    with pytest.raises(ValueError, match=r"have shape \(12,\).*transform_input"):
        RobustProportionClassifier().fit(raw[:, :5], DATA.y, DATA.bags)


def test_instances_that_are_not_finite_are_named():
    X = DATA.bags.X.copy()
    X[np.flatnonzero(DATA.bags.index == 7)[3], 2] = np.nan
    with pytest.raises(
        ValueError,
        match=f"Instance 3 of bag {DATA.bags.names[7]} contains NaN or infinity .1 of 240",
    ):
        MeanMapClassifier().fit(DATA.X_labeled, DATA.y, DATA.bags.with_instances(X))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([None] * len(DATA.y), "holds 80 missing values"),
        ([np.nan, *DATA.groups[1:]], "holds 1 missing value "),
        ([pd.NA, *DATA.groups[1:]], "holds 1 missing value "),
        (pd.Series(pd.NaT, range(len(DATA.y))), "holds 80 missing values"),
        ("slide", r"has shape \(\), but there are 80 labeled patches"),
        (3, r"has shape \(\)"),
        (pd.DataFrame({"slide": DATA.groups}), r"has shape \(80, 1\)"),
        ([(1, 2)] * 79 + [(1,)], r".* give the slide of each, shape \(80,\)"),
    ],
)
def test_slides_that_are_missing_or_of_another_shape(groups, message):
    with pytest.raises(ValueError, match=f"groups {message}"):
        MeanMapClassifier().fit(DATA.X_labeled, DATA.y, groups=groups)


def test_a_labeled_patch_that_is_not_finite_is_named():
    for value in (np.nan, np.inf, -np.inf):
        X = DATA.X_labeled.copy()
        X[[3, 5], 2] = value
        with pytest.raises(ValueError, match=r"Labeled patch 3 contains NaN or infinity \(2 of 80"):
            MeanMapClassifier().fit(X, DATA.y, DATA.bags)


def test_slides_of_labeled_patches_given_by_position():
    slides = np.repeat(["a", "b"], 40)
    kinds = [slides, np.arange(80), slides.tolist(), slides[:, None], pd.Categorical(slides)]
    message = r"has one value for each of 80 labeled patches.*groups=groups"
    for groups in [*kinds, pd.DataFrame({"slide": slides})]:
        for given in ([DATA.bags, groups], [groups]):
            with pytest.raises(ValueError, match=message):
                RobustProportionClassifier().fit(DATA.X_labeled, DATA.y, *given)


@pytest.mark.parametrize("proportions", [None, DATA.bags.proportions])
@pytest.mark.parametrize("kind", [tuple, list])
def test_flat_instances_without_their_bags(proportions, kind):
    with pytest.raises(ValueError, match=r"pass the Bags as bag_proportions=bags"):
        RobustProportionClassifier().fit(DATA.X_labeled, DATA.y, kind(DATA.bags.flat), proportions)
    one = kind([DATA.bags.X[DATA.bags.index == 0]])  # one bag with its proportions
    MeanMapClassifier().fit(DATA.X_labeled, DATA.y, one, DATA.bags.proportions[:1])
    readers = np.stack([DATA.bags.proportions[:1]] * 2)
    MeanMapClassifier().fit(DATA.X_labeled, DATA.y, one, readers)


def test_nothing_and_a_number_get_the_messages_of_scikit_learn():
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        MeanMapClassifier().fit(DATA.X_labeled[:0], DATA.y[:0], DATA.bags)
    with pytest.raises(ValueError, match="Expected 2D array"):
        MeanMapClassifier().fit(np.float32(np.nan), DATA.y, DATA.bags)


@pytest.mark.parametrize("text", ["", "  ", "nan", "<NA>"])
def test_texts_that_are_no_labels(text):
    y = np.where(DATA.y == 0, text, np.char.add("class ", DATA.y.astype(str)))
    message = rf"{np.sum(DATA.y == 0)} of 80 labels are texts without a class, such as '{text}'"
    with pytest.raises(ValueError, match=message):
        MeanMapClassifier().fit(DATA.X_labeled, y, DATA.bags)


def test_bags_in_place_of_labels():
    with pytest.raises(TypeError, match=r"y is a Bags; .* fit\(X_labeled, y, X_bags\)"):
        MeanMapClassifier().fit(DATA.X_labeled, DATA.bags, DATA.y)


def test_arrays_by_name_are_matched_by_name():
    bags = DATA.bags
    arrays = [bags.X[bags.index == bag] for bag in range(bags.n_bags)]
    names = [f"s{bag:02d}" for bag in range(bags.n_bags)]
    table = pd.DataFrame(bags.proportions, names, columns=[0, 1, 2, 3])
    shuffled = table.sample(frac=1, random_state=0)
    by_name = dict(zip(names, arrays, strict=True))
    expected = MeanMapClassifier().fit(DATA.X_labeled, DATA.y, Bags(arrays, names, table))
    for recorded in (table, shuffled):
        clf = MeanMapClassifier().fit(DATA.X_labeled, DATA.y, by_name, recorded)
        assert_allclose(clf.coef_, expected.coef_)
    assert Bags(by_name, proportions=shuffled).names.tolist() == names
    with pytest.raises(ValueError, match=r"row for bag 's.*have no names.*Pass a dict"):
        MeanMapClassifier().fit(DATA.X_labeled, DATA.y, arrays, shuffled)
    with pytest.raises(ValueError, match="leave bag_ids out"):
        Bags(by_name, names)
    with pytest.raises(
        ValueError, match=r"'a' has no row .*12 of 12.* whose rows are 's00', 's01', 's02'"
    ):
        Bags([*arrays], ["a", *"bcdefghijkl"], table)


def test_bags_without_a_record_are_predicted_alone():
    clf = MeanMapClassifier().fit(DATA.X_labeled, DATA.y, DATA.bags)
    X, ids = DATA.X_test[:60], np.repeat(["a", "b", "c"], 20)
    table = pd.DataFrame(np.nan, ["c", "b", "a"], [0, 1, 2, 3])
    table.loc["b"] = [0.4, 0.3, 0.2, 0.1]
    alone = clf.predict_proba(X)
    expected = alone.copy()
    expected[20:40] = clf.predict_proba(X[20:40], bag_proportions=table.loc[["b"]])
    array = table.sort_index().to_numpy()
    for recorded in (table, array, array.tolist()):
        found = clf.predict_proba(X, bag_ids=ids, bag_proportions=recorded)
        assert_allclose(found, expected)
    assert np.abs(found[20:40] - alone[20:40]).max() > 1e-3
    with pytest.raises(ValueError, match="has 2 rows but there are 3 bags"):
        clf.predict_proba(X, bag_ids=ids, bag_proportions=array[:2])
    table.loc["b"] = np.nan
    assert_allclose(clf.predict_proba(X, bag_ids=ids, bag_proportions=table), alone)
    with pytest.raises(ValueError, match=r"Bag 'a' has no row"):
        clf.predict_proba(X, bag_ids=ids, bag_proportions=table.drop("a"))
    with pytest.raises(ValueError, match="bag_ids holds 1 missing value"):
        clf.predict_proba(X, bag_ids=[None, *ids[1:]], bag_proportions=table)


BAG = DATA.bags.index[5]
FIFTH = f"Instance {(DATA.bags.index[:5] == BAG).sum()} of bag {DATA.bags.names[BAG]}"


def broken(value, rows=(5,)):
    """The bags with instances in which every feature has this value."""
    X = DATA.bags.X.copy()
    X[list(rows)] = value
    return DATA.bags.with_instances(X)


@pytest.mark.parametrize("value", [200.0, 2e3, -2e3])
def test_an_instance_far_from_all_others_is_named(value):
    with pytest.warns(UserWarning, match=rf"{FIFTH} is .* times as far"):
        has_outliers(DATA.X_labeled, broken(value))


def test_a_labeled_patch_far_from_all_others_is_named():
    X = DATA.X_labeled.copy()
    X[7], X[9] = 300.0, 200.0
    with pytest.warns(
        UserWarning, match=r"Labeled patch 7 .* 2 of .* instances more than 30 times"
    ):
        has_outliers(X, None)


@pytest.mark.parametrize("value", [65504.0, 1e7, 1e30])
def test_what_cannot_be_a_measurement_is_refused(value):
    model = RobustProportionClassifier(random_state=0)
    with pytest.raises(ValueError, match=rf"{FIFTH} .* beyond half precision"):
        model.fit(DATA.X_labeled, DATA.y, broken(value))


def test_distances_do_not_depend_on_unit_and_origin():
    model = RobustProportionClassifier(random_state=0)
    for unit, origin in ((1e-6, 0.0), (1e3, 1e4)):
        X, bags = DATA.X_labeled * unit + origin, broken(1e6)
        with pytest.raises(ValueError, match=FIFTH):
            model.fit(X, DATA.y, bags.with_instances(bags.X * unit + origin))


@pytest.mark.parametrize("n_labeled", [40, 4000])
def test_labeled_patches_that_are_nearly_alike_do_not_make_bags_far(n_labeled):
    rng = np.random.default_rng(0)
    X = rng.normal(scale=1e-5, size=(n_labeled, 12)).astype(np.float32)
    has_outliers(X, DATA.bags)
    has_outliers(X * 1e10, DATA.bags)


def test_usual_features_are_no_cause_for_a_warning():
    rng = np.random.default_rng(0)
    for draw in (rng.normal, rng.lognormal, lambda size: rng.poisson(0.3, size)):
        has_outliers(draw(size=(20_000, 16)).astype(np.float32), None)  # warnings are errors


def test_many_blank_tiles_do_not_make_tissue_far():
    """All but equal, as those of empty glass; and an outlier is still one."""
    rng = np.random.default_rng(0)
    for noise in (0.0, 1e-6, 1e-3):
        blank = 1 + noise * rng.normal(size=(600, 32))
        X = np.concatenate([blank, rng.normal(size=(400, 32))])
        has_outliers(X, None)
        X[700] = 1e8
        with pytest.raises(ValueError, match=r"Labeled patch 700 .* 1 of 1000 instances"):
            has_outliers(X, None)


def test_tissue_among_nearly_equal_tiles_is_not_far():
    rng = np.random.default_rng(0)
    for noise in (1e-6, 1e-2):
        blank = 1 + noise * rng.normal(size=(960, 32))
        has_outliers(np.concatenate([blank, rng.normal(size=(40, 32))]), None)


@pytest.mark.parametrize("times", [1e2, 1e6])
def test_a_damaged_slide_of_several_is_noticed(times):
    X = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)
    X[np.arange(200) % 8 == 3] *= times
    with pytest.warns(UserWarning, match=r"Labeled patch \d+ .* as 50% of the others, 25 of 200"):
        assert has_outliers(X, None)
    if times == 1e6:
        with pytest.raises(ValueError, match=r"Labeled patch \d+ .* 25 of 440"):
            has_outliers(X, DATA.bags)
        with pytest.raises(ValueError, match=r"Instance \d+ of bag .* 40 of 320"):
            has_outliers(DATA.X_labeled, broken(1e7, range(40)))


def test_tissue_of_bags_that_are_mostly_blank_is_not_far():
    """Tiles all but equal to 0, such as optical densities of white, in bags and fewer labeled ones."""
    rng = np.random.default_rng(0)
    X = (np.arange(60)[:, None] % 3 + 0.2 * rng.normal(size=(60, 12))).astype(np.float32)
    X[::3] = -4e-9
    many = np.tile(X, (4, 1))
    many[np.arange(240) % 15 > 3] = -4e-9
    assert not has_outliers(X, DATA.bags.with_instances(many))


def test_hardly_active_features_are_no_unit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 60))
    active = rng.random((4000, 20)) < 0.001
    X[:, 40:] = np.where(active, rng.lognormal(-2, 1, (4000, 20)), 0)
    assert not has_outliers(X, None)  # warnings are errors


def test_features_that_only_a_class_of_the_bags_shows_are_in_no_other_unit():
    rng = np.random.default_rng(0)
    X, bags = DATA.X_labeled.copy(), DATA.bags.X.copy()
    for silent in (X, bags):
        silent[:, :3] = 0.02 * rng.normal(size=(len(silent), 3))
    bags[::3, :3] += 2
    are_scaled_differently(X, bags)


def test_a_code_for_missing_values_beside_a_feature_of_large_numbers():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 40))
    X[:, 0] = 1e6 * rng.random(200)
    assert not has_outliers(X, None)
    X[5, 1:] = -999
    with pytest.warns(UserWarning, match=r"Labeled patch 5 "):
        assert has_outliers(X, None)


def test_a_rare_indicator_beside_small_numbers_is_not_refused():
    rng = np.random.default_rng(0)
    X = np.column_stack([1e-4 * rng.random((200, 3)), rng.random(200) < 0.03])
    with pytest.warns(UserWarning, match="times as far"):
        has_outliers(X, None)


def test_an_outlier_is_not_called_a_difference_of_bags():
    with pytest.warns(UserWarning) as found:
        check_features(DATA.X_labeled, DATA.y, broken(2e3))
    assert len(found) == 1 and "times as far" in str(found[0].message)


@pytest.mark.parametrize("change", [lambda X: X * 1000, lambda X: X + 1000])
def test_part_of_the_features_in_other_units(change):
    X = DATA.bags.X.copy()
    X[:, :2] = change(X[:, :2])  # 2 of 12
    with pytest.warns(UserWarning, match="2 of 12 features differ by more than 20"):
        check_features(DATA.X_labeled, DATA.y, DATA.bags.with_instances(X))


def rectified(n_features=16):
    data = make_bags(n_bags=6, bag_size=20, n_features=n_features, random_state=0)
    labeled, of_bags = np.maximum(data.X_labeled, 0), np.maximum(data.bags.X, 0)
    return data, labeled, of_bags


def test_a_pipeline_that_standardizes_labeled_patches_only():
    """Means and standard deviations differ no more than with another scanner."""
    data, labeled, of_bags = rectified()
    bags = data.bags.with_instances(of_bags)
    pipeline = make_pipeline(StandardScaler(), RobustProportionClassifier(random_state=0))
    with pytest.warns(UserWarning, match=r"Only one of bags .* negative features.*transform_input"):
        pipeline.fit(labeled, data.y, robustproportionclassifier__X_bags=bags)
    scaler = StandardScaler().fit(labeled)
    standardized = data.bags.with_instances(scaler.transform(of_bags))
    with pytest.warns(UserWarning, match=r"Only one of bags and labeled patches has negative"):
        check_features(labeled, data.y, standardized)


def test_blank_tiles_at_the_beginning_of_each_bag():
    """Instances in the order of a grid are blank at first."""
    X = np.concatenate([np.zeros((1200, 12)), DATA.bags.X])
    index = np.concatenate([np.repeat(np.arange(12), 100), np.repeat(np.arange(12), 20)])
    check_features(DATA.X_labeled, DATA.y, Bags(X.astype(np.float32), index))


def test_labeled_patches_scaled_to_their_minimum_and_maximum():
    data, _, _ = rectified()
    scaler = MinMaxScaler().fit(data.X_labeled)
    labeled, of_bags = scaler.transform(data.X_labeled), scaler.transform(data.bags.X - 4)
    assert np.median((of_bags < 0).mean(axis=0)) > 0.25
    assert not have_other_signs(labeled, of_bags)


def test_parts_with_the_same_signs():  # warnings are errors
    data, labeled, of_bags = rectified()
    check_features(labeled, data.y, data.bags.with_instances(of_bags))
    scaler = StandardScaler().fit(labeled)
    both = scaler.transform(labeled), scaler.transform(of_bags)
    check_features(both[0], data.y, data.bags.with_instances(both[1]))
    some = of_bags.copy()
    some[:, 0] -= 1  # a feature that is negative where it is not active
    check_features(labeled, data.y, data.bags.with_instances(some))
    few, labeled, _ = rectified(n_features=15)
    check_features(labeled, few.y, few.bags)


def test_few_patches_have_no_usual_distance():
    has_outliers(np.array([[0, 0], [1e-5, 0], [1, 1]]), None)
    has_outliers(np.eye(100)[:, :4], None)


def test_labeled_patches_that_are_all_the_same_are_reported():
    model = RobustProportionClassifier(random_state=0)
    with pytest.warns(UserWarning, match=r"All 40 labeled patches have the same 3 features"):
        model.fit(np.full((40, 3), 0.5), np.arange(40) % 2)
