"""Agreement of proportions and of readers, against published examples and statsmodels."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from proportion_ssl.evaluation import (
    IASLC_2020,
    GradingScheme,
    cohen_kappa,
    compare_readers,
    concordance_correlation,
    grade,
    intraclass_correlation,
    predominant_class,
    proportion_agreement,
)

#: Shrout and Fleiss (1979), table 2: six subjects, four judges.
SHROUT = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]

#: Bland and Altman (1986): peak expiratory flow of 17 subjects, Wright meter and mini meter, first readings.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_icc_of_shrout_and_fleiss():
    """ICC(2,1) = .29 in the paper; the interval .02 to .76 was computed with pingouin 0.7.0, ICC(A,1)."""
    found = intraclass_correlation(SHROUT)
    assert_allclose(found.value, 0.29, atol=0.001)
    assert_allclose([found.low, found.high], [0.02, 0.76], atol=0.005)


def test_icc_against_pingouin():
    """pingouin 0.7.0: intraclass_corr of these numbers gives ICC(A,1) = 0.932564 and [0.80, 0.97]."""
    rng = np.random.default_rng(0)
    x = rng.random(20)
    y = np.clip(x + rng.normal(0, 0.15, 20) + 0.05, 0, 1)
    rng.integers(0, 3, 80)
    found = intraclass_correlation(np.column_stack([x, y]))
    assert_allclose(found.value, 0.932564, atol=1e-6)
    assert_allclose([found.low, found.high], [0.80, 0.97], atol=0.005)


def test_icc_and_concordance_of_special_cases():
    x = np.array([0.1, 0.4, 0.7])
    for agree in (intraclass_correlation(np.column_stack([x, x])), concordance_correlation(x, x)):
        assert agree.value == pytest.approx(1)
    assert intraclass_correlation(np.column_stack([x, x + 0.2])).value < 1
    assert np.isnan(intraclass_correlation([[1, 1], [1, 1]]).value)
    assert np.isnan(intraclass_correlation([[1, 2]]).value)
    assert np.isnan(concordance_correlation([1, 1], [1, 1]).value)
    assert concordance_correlation([1, 1, 1], [2, 2, 2]).value == 0
    assert concordance_correlation(x, -x).value < 0
    with pytest.raises(ValueError, match="two or more raters"):
        intraclass_correlation([[1], [2]])
    with pytest.raises(ValueError, match="not finite"):
        intraclass_correlation([[1, np.nan], [2, 2]])
    with pytest.raises(ValueError, match="same length"):
        concordance_correlation([1, 2], [1])


def test_bland_and_altmans_example():
    """The paper: differences Wright - mini have mean -2.1 and standard deviation 38.8 l/min."""
    scale = 1000
    table = proportion_agreement(
        np.array([MINI]).T / scale, np.array([WRIGHT]).T / scale, classes=["flow"]
    )
    row = table.loc["flow"]
    assert_allclose(row["bias"] * scale, -2.1, atol=0.05)
    assert_allclose((row["limit_high"] - row["bias"]) * scale / 1.959964, 38.8, atol=0.05)
    # t interval of the mean: -22.0 to 17.8 in the paper
    assert_allclose([row["bias_low"] * scale, row["bias_high"] * scale], [-22.0, 17.8], atol=0.1)


def test_concordance_equals_its_parts_and_its_interval_covers():
    """Precision times accuracy (Lin 1989); coverage over normal pairs whose concordance is known."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50))
    y = 0.8 * x + 0.3 * y + 0.2
    ratio, shift = x.std() / y.std(), (x.mean() - y.mean()) / np.sqrt(x.std() * y.std())
    accuracy = 2 / (ratio + 1 / ratio + shift**2)
    expected = stats.pearsonr(x, y).statistic * accuracy
    assert_allclose(concordance_correlation(x, y).value, expected)
    truth = 2 * 0.8 / (1 + 0.8**2 + 0.3**2 + 0.2**2)
    hits = 0
    for _ in range(500):
        x, y = rng.normal(size=(2, 60))
        found = concordance_correlation(x, 0.8 * x + 0.3 * y + 0.2)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 500 <= 0.98


@pytest.mark.slow
def test_interval_of_the_icc_covers():
    rng = np.random.default_rng(2)
    truth, hits = 1.0 / (1.0 + 0.2), 0  # subjects, and raters together with the rest
    for _ in range(600):
        ratings = rng.normal(size=(25, 1)) + rng.normal(0, np.sqrt(0.05), size=(1, 4))
        ratings = ratings + rng.normal(0, np.sqrt(0.15), size=(25, 4))
        found = intraclass_correlation(ratings)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 600 <= 0.98


def test_agreement_of_bags_without_a_record_or_without_spread():
    recorded = pd.DataFrame({"a": [0.5, 0.2, np.nan], "b": [0.5, 0.8, np.nan], "c": 0.0})
    predicted = pd.DataFrame({"c": 0.0, "b": [0.4, 0.8, 0.5], "a": [0.6, 0.2, 0.5]})
    table = proportion_agreement(recorded, predicted)
    assert table["n"].tolist() == [2, 2, 2]
    assert_allclose(table["mean_absolute_error"], [0.05, 0.05, 0.0])
    assert np.isnan(table.loc["c", "ICC"]) and table.loc["c", "note"].startswith("all shares")
    assert table.loc[["a", "b"], "note"].tolist() == ["", ""]
    single = proportion_agreement([[0.5, 0.5]], [[0.4, 0.6]])
    assert single["note"].tolist() == ["one bag: no spread"] * 2
    with pytest.raises(ValueError, match="No bag has both"):
        proportion_agreement([[np.nan, np.nan]], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="percent"):
        proportion_agreement([[50.0, 50.0]], [[0.5, 0.5]])


# --- what is reported ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        # Moreira et al. (2020): lepidic, acinar, papillary, micropapillary, solid, cribriform
        ([0.60, 0.40, 0, 0, 0, 0], 1),
        ([0.60, 0.21, 0, 0.19, 0, 0], 1),
        ([0.60, 0.20, 0, 0.10, 0.10, 0], 3),
        ([0.30, 0.60, 0.10, 0, 0, 0], 2),
        ([0.20, 0.10, 0.60, 0.10, 0, 0], 2),
        ([0.20, 0.60, 0, 0, 0, 0.20], 3),
        ([0, 0, 0, 0, 1, 0], 3),
        ([0.7, 0.1, 0, 0.05 + 0.05, 0.05 + 0.05, 0], 3),
        ([np.nan] * 6, None),
        ([0, 0, 0, 0, 0, 0], None),
    ],
)
def test_grades(shares, expected):
    classes = ["Lepidic", "acinar", "papillary", "micro-papillary", "solid", "cribriform"]
    assert grade([shares], classes=classes).tolist() == [expected]


def test_cutoffs_and_schemes_can_be_set():
    from dataclasses import replace

    shares, classes = [[0.80, 0.20]], ["lepidic", "solid"]
    assert grade(shares, replace(IASLC_2020, cutoff=0.25), classes=classes).tolist() == [1]
    own = GradingScheme("own", {"low": 1}, ("high",), 0.5, 2)
    assert grade([[0.6, 0.4], [0.5, 0.5]], own, classes=["low", "high"]).tolist() == [1, 2]
    with pytest.raises(ValueError, match="IASLC 2020 has no grade for 'adenoma'"):
        grade([[1.0]], classes=["adenoma"])
    with pytest.raises(ValueError, match=r"cutoff must be in \(0, 1\]"):
        GradingScheme("own", {}, (), 0, 2)


def test_predominant_class():
    shares = pd.DataFrame([[0.2, 0.8], [0.5, 0.5], [np.nan, np.nan], [0, 0]], columns=["a", "b"])
    assert predominant_class(shares).tolist() == ["b", "a", None, None]
    assert predominant_class([[0.3 + 0.0, 0.1 + 0.2, 0.4]]).tolist() == [2]
    with pytest.raises(ValueError, match="for one tumor"):
        predominant_class([0.5, 0.5])


# --- readers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappa_against_statsmodels_and_scikit_learn(weights):
    rng = np.random.default_rng(3)
    first = rng.integers(0, 4, 80)
    second = np.where(rng.random(80) < 0.6, first, rng.integers(0, 4, 80))
    found = cohen_kappa(first, second, weights=weights)
    table = np.zeros((4, 4))
    np.add.at(table, (first, second), 1)
    theirs = cohens_kappa(table, wt=weights)
    assert_allclose(found[:3], [theirs.kappa, theirs.kappa_low, theirs.kappa_upp])
    assert_allclose(found.value, cohen_kappa_score(first, second, weights=weights))


def test_kappa_of_special_cases():
    assert cohen_kappa(["a", "b"], ["a", "b"]).value == 1
    assert np.isnan(cohen_kappa(["a", "a"], ["a", "a"]).value)
    assert np.isnan(cohen_kappa([None], ["a"]).value) and cohen_kappa([None], ["a"]).n == 0
    with_gaps = cohen_kappa([1, 2, np.nan, 2], [1, 2, 2, None])
    assert with_gaps.n == 2 and with_gaps.value == 1
    seen = ([1, 4, 4, 2, 1], [1, 4, 1, 2, 2])  # 3 lies between, though nobody said it
    expected = cohen_kappa_score(*seen, labels=[1, 2, 3, 4], weights="linear")
    found = cohen_kappa(*seen, weights="linear", categories=[1, 2, 3, 4])
    assert found.value == pytest.approx(expected)
    assert found.value != pytest.approx(cohen_kappa(*seen, weights="linear").value)
    with pytest.raises(ValueError, match="not among the categories"):
        cohen_kappa([1], [4], categories=[1, 2])
    with pytest.raises(ValueError, match="weights must be one of"):
        cohen_kappa([1], [1], weights="cubic")


def test_readers_and_model():
    readers = {"A": [1, 1, 2, 3], "B": [1, 2, 2, 3], "C": [1, 1, 2, None]}
    table = compare_readers(readers, [1, 1, 2, 3])
    assert table["kind"].tolist() == ["readers"] * 3 + ["model"] * 3
    assert table["n"].tolist() == [4, 3, 3, 4, 4, 3]
    by_pair = table.set_index(["first", "second"])["kappa"]
    assert by_pair["model", "A"] == 1 and by_pair["model", "B"] == by_pair["A", "B"] < 1
    with pytest.raises(ValueError, match="two or more readers"):
        compare_readers({"A": [1]})
    with pytest.raises(ValueError, match="called 'model'"):
        compare_readers({"model": [1], "A": [1]})


def test_classes_order_the_columns_of_a_table_by_name():
    """Names beside a DataFrame are not put on its columns by position."""
    recorded = pd.DataFrame({"solid": [0.2, 0.7, 0.4], "acinar": [0.8, 0.3, 0.6]})
    predicted = pd.DataFrame({"solid": [0.1, 0.8, 0.4], "acinar": [0.9, 0.2, 0.6]})
    table = proportion_agreement(recorded, predicted)
    other = proportion_agreement(recorded, predicted, classes=["acinar", "solid"])
    pd.testing.assert_frame_equal(other.loc[table.index], table)
    names = ["acinar", "solid"]
    assert predominant_class(recorded, names).tolist() == predominant_class(recorded).tolist()
    assert grade(recorded, classes=names).tolist() == grade(recorded).tolist()
    with pytest.raises(ValueError, match="columns of proportions are"):
        predominant_class(recorded, ["acinar", "papillary"])
