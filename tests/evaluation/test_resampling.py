"""Intervals and comparisons of scores, against scipy, statsmodels, closed forms and simulation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, precision_score
from statsmodels.stats.multitest import multipletests

from proportion_ssl.evaluation import (
    adjust_p_values,
    bootstrap_scores,
    compare_systems,
    confusion_scores,
    slide_confusions,
)


def draw_confusions(n_slides, rng, n_classes=4, quality=(8, 2)):
    """Slides of unequal size, class shares and accuracy."""
    matrices = np.zeros((n_slides, n_classes, n_classes))
    sizes = rng.lognormal(5, 0.6, n_slides)
    shares = rng.dirichlet(np.full(n_classes, 0.6), n_slides)
    n_true = rng.poisson(sizes[:, np.newaxis] * shares)
    right = rng.beta(*quality, (n_slides, n_classes))
    for i in range(n_slides):
        for c in range(n_classes):
            wrong = rng.dirichlet(np.full(n_classes - 1, 0.7)) * (1 - right[i, c])
            p = np.insert(wrong, c, right[i, c])
            matrices[i, c] = rng.multinomial(n_true[i, c], p / p.sum())
    return matrices


# --- confusion matrices -------------------------------------------------------------------------


def test_scores_of_stacked_matrices_against_scikit_learn():
    rng = np.random.default_rng(0)
    y, p, slides = rng.integers(0, 4, 300), rng.integers(0, 4, 300), rng.integers(0, 5, 300)
    confusions, names = slide_confusions(y, p, slides)
    scores = confusion_scores(confusions)
    for i, name in enumerate(names):
        own = slides == name
        assert_array_equal(confusions[i], confusion_matrix(y[own], p[own], labels=range(4)))
        assert_allclose(scores["OP"][i], accuracy_score(y[own], p[own]))
        assert_allclose(scores["mIoU"][i], jaccard_score(y[own], p[own], average="macro"))
        assert_allclose(scores["PC"][i], precision_score(y[own], p[own], average="macro"))


def test_slide_confusions_keep_the_order_of_the_classes():
    confusions, names = slide_confusions(
        ["b", "a", "b"], ["a", "a", "b"], [7, 7, 3], classes=["b", "c", "a"]
    )
    assert names.tolist() == [3, 7]
    assert confusions[0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert confusions[1].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("labels", [["z"], ["c", "d"]])
def test_unknown_label_is_named(labels):
    with pytest.raises(ValueError, match=r"y_true holds 'a', which is not among the classes"):
        slide_confusions(["a"], labels[:1], ["s"], classes=labels)


# --- intervals ----------------------------------------------------------------------------------


def test_interval_of_a_share_is_the_t_interval_on_the_logit_scale():
    """Slides of equal size: the pooled share is the mean of the shares, whose standard error is known."""
    rng = np.random.default_rng(1)
    right = rng.binomial(50, 0.8, 30)
    matrices = np.zeros((30, 2, 2))
    matrices[:, 0, 0], matrices[:, 0, 1] = right, 50 - right
    found = bootstrap_scores(matrices, metric="OP", n_resamples=40_000)
    shares = right / 50
    error = stats.t.ppf(0.975, 29) * stats.sem(shares)
    mean = shares.mean()
    logit = np.log(mean / (1 - mean)) + np.array([-1, 1]) * error / (mean * (1 - mean))
    assert_allclose([found.low, found.high], 1 / (1 + np.exp(-logit)), atol=0.001)
    assert found.n_groups == 30 and found.score == pytest.approx(mean)


@pytest.mark.parametrize(
    "sizes, effective", [([10] * 6, 6), ([10, 10, 10, 30], 3), ([1, 1, 1, 1000], 2)]
)
def test_large_slides_count_for_more_so_that_there_are_fewer(sizes, effective):
    """Student's t of the effective number of slides: the ratio of widths at two levels tells which."""
    n_right = np.array(sizes) * np.linspace(0.6, 0.9, len(sizes))
    matrices = np.zeros((len(sizes), 2, 2))
    matrices[:, 0, 0], matrices[:, 0, 1] = n_right, np.array(sizes) - n_right
    wide, narrow = (bootstrap_scores(matrices, metric="OP", level=level) for level in (0.95, 0.5))
    widths = [
        np.diff(np.log([e.low, e.high]) - np.log1p([-e.low, -e.high])) for e in (wide, narrow)
    ]
    t = stats.t.ppf([0.975, 0.75], effective - 1)
    assert_allclose(widths[0] / widths[1], t[0] / t[1], rtol=1e-6)


def test_interval_of_a_function_is_not_transformed():
    rng = np.random.default_rng(1)
    matrices = rng.poisson(20, size=(25, 1, 1)).astype(float)
    found = bootstrap_scores(matrices, metric=lambda m: m[..., 0, 0] / 25, n_resamples=40_000)
    values = matrices[:, 0, 0]
    error = stats.t.ppf(0.975, 24) * stats.sem(values)
    assert_allclose([found.low, found.high], values.mean() + error * np.array([-1, 1]), rtol=0.01)


def test_cases_are_resampled_together():
    matrices = draw_confusions(12, np.random.default_rng(2))
    doubled = np.repeat(matrices, 2, axis=0)
    groups = np.repeat(np.arange(12), 2)
    alone, cases = bootstrap_scores(doubled), bootstrap_scores(doubled, groups=groups)
    once = bootstrap_scores(matrices)
    assert_allclose(cases[:3], once[:3])
    assert cases.n_groups == 12 and alone.n_groups == 24
    assert alone.high - alone.low < 0.8 * (cases.high - cases.low)


def test_bad_and_poor_input():
    one = bootstrap_scores([[[3, 1], [0, 4]]])
    assert one.score == pytest.approx((3 / 4 + 4 / 5) / 2) and np.isnan(one.low)
    empty = bootstrap_scores(np.zeros((3, 2, 2)))
    assert np.isnan(empty.score) and empty.n_groups == 0
    perfect = bootstrap_scores([[[3, 0], [0, 4]]] * 4)
    assert perfect[:3] == (1.0, 1.0, 1.0)
    for wrong, message in (
        ([[1, 2], [3, 4]], "one matrix per slide"),
        ([[[1, -2], [3, 4]]], "negative or not finite"),
        ([[[1, np.nan], [3, 4]]], "negative or not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            bootstrap_scores(wrong)
    with pytest.raises(ValueError, match="metric must be one of OP, PC, mIoU"):
        bootstrap_scores([[[1, 0], [0, 1]]], metric="F1")
    with pytest.raises(ValueError, match="groups has 1 values, but there are 2 slides"):
        bootstrap_scores([[[1, 0], [0, 1]]] * 2, groups=[1])


@pytest.mark.slow
@pytest.mark.parametrize("n_slides", [8, 20])
def test_intervals_cover_the_score_of_all_slides(n_slides):
    """400 cohorts: nominal 95%; the standard error of the coverage is 1.1 points."""
    rng = np.random.default_rng(3)
    truth = confusion_scores(draw_confusions(4000, rng).sum(axis=0))
    covered = {"OP": 0, "mIoU": 0}
    for _ in range(400):
        matrices = draw_confusions(n_slides, rng)
        for metric in covered:
            found = bootstrap_scores(matrices, metric=metric, n_resamples=500)
            covered[metric] += found.low <= truth[metric] <= found.high
    for hits in covered.values():
        assert 0.90 <= hits / 400 <= 0.985


# --- comparisons --------------------------------------------------------------------------------


def test_exchange_test_against_scipy():
    """The permutation test of scipy, with pairs that change places, on a mean of shares."""
    rng = np.random.default_rng(4)
    first, second = rng.binomial(40, 0.8, 8), rng.binomial(40, 0.7, 8)
    systems = {}
    for name, right in (("A", first), ("B", second)):
        systems[name] = np.zeros((8, 2, 2))
        systems[name][:, 0, 0], systems[name][:, 0, 1] = right, 40 - right
    row = compare_systems(systems, metric="OP").iloc[0]
    expected = stats.permutation_test(
        (first / 40, second / 40),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert row["p"] == pytest.approx(expected.pvalue)
    assert row["difference"] == pytest.approx(expected.statistic)
    error = stats.t.ppf(0.975, 7) * stats.sem((first - second) / 40)
    assert_allclose(
        [row["low"], row["high"]], row["difference"] + error * np.array([-1, 1]), atol=0.01
    )


def test_many_slides_draw_exchanges_and_find_a_difference():
    good, poor = (
        draw_confusions(30, np.random.default_rng(6), quality=q) for q in ((9, 1), (9, 1))
    )
    moved = np.minimum(poor, np.floor(0.3 * poor)) * np.eye(4)
    poor = poor - moved + np.roll(moved, 1, axis=2)
    table = compare_systems({"good": good, "poor": poor, "same": good}, reference="good")
    assert table["system"].tolist() == ["poor", "same"]
    worse, same = table.iloc[0], table.iloc[1]
    assert worse["high"] < 0 and worse["p_adjusted"] < 0.001
    assert same["difference"] == same["low"] == same["high"] == 0 and same["p"] == 1


@pytest.mark.slow
def test_p_values_are_valid_when_systems_are_alike():
    """300 pairs of exchangeable systems: at most 5% (and three standard errors) have p <= .05."""
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(300):
        truth = draw_confusions(8, rng).sum(axis=2)
        systems = {}
        for name in "AB":
            systems[name] = np.zeros((8, 4, 4))
            for i in range(8):
                right = rng.beta(8, 2)
                p = np.full((4, 4), (1 - right) / 3) + np.eye(4) * (right - (1 - right) / 3)
                systems[name][i] = [
                    rng.multinomial(int(n), row) for n, row in zip(truth[i], p, strict=True)
                ]
        found += compare_systems(systems, n_resamples=50)["p"][0] <= 0.05
    assert found / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_corrections_against_statsmodels():
    p = np.random.default_rng(8).random(20) ** 3
    for ours, theirs in (("holm", "holm"), ("benjamini-hochberg", "fdr_bh")):
        assert_allclose(adjust_p_values(p, ours), multipletests(p, method=theirs)[1])
    with_gap = adjust_p_values([0.01, np.nan, 0.04])
    assert_allclose(with_gap, [0.02, np.nan, 0.04])
    with pytest.raises(ValueError, match="p_values must be in"):
        adjust_p_values([1.5])
    with pytest.raises(ValueError, match="correction must be"):
        adjust_p_values([0.5], "bonferroni")


def test_one_slide_has_no_interval_and_no_p_value():
    row = compare_systems({"A": [[[1, 0], [0, 1]]], "B": [[[0, 1], [0, 1]]]}).iloc[0]
    assert row["difference"] == 0.75 and row["n_groups"] == 1
    assert row[["low", "high", "p", "p_adjusted"]].isna().all()


def test_systems_must_be_judged_on_the_same_slides():
    one = np.array([[[1, 0], [0, 1]]] * 2)
    with pytest.raises(ValueError, match="two or more systems"):
        compare_systems({"A": one})
    with pytest.raises(ValueError, match="same slides and classes"):
        compare_systems({"A": one, "B": one[:1]})
    with pytest.raises(ValueError, match="have different true labels"):
        compare_systems({"A": one, "B": 2 * one})
    with pytest.raises(ValueError, match="reference is 'C'"):
        compare_systems({"A": one, "B": one}, reference="C")


def test_missing_slides_labels_and_groups_are_refused():
    """pandas codes what is missing as -1, which would be the last class or slide."""
    y, slides = [0, 1, 1, 0], ["a", None, "b", "b"]
    with pytest.raises(ValueError, match="slides holds 1 missing values"):
        slide_confusions(y, y, slides)
    with pytest.raises(ValueError, match="y_true holds 1 missing values"):
        slide_confusions([0, np.nan, 1, 0], y, ["a"] * 4)
    with pytest.raises(ValueError, match="y_pred holds 2 missing values"):
        slide_confusions(["x"] * 4, np.array(["x", None, "x", None], dtype=object), ["a"] * 4)
    confusions = np.tile(np.eye(2), (3, 1, 1))
    for groups in ([1, np.nan, 2.0], np.array(["a", None, "b"], dtype=object)):
        with pytest.raises(ValueError, match="groups holds 1 missing value"):
            bootstrap_scores(confusions, groups=groups)
