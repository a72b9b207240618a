"""Learning curves and suggestions of slides."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.linear_model import LogisticRegression

from proportion_ssl import mean_iou_score
from proportion_ssl.datasets import make_bags
from proportion_ssl.evaluation import expected_gain, learning_curve, suggest_slides


def test_curve_calls_with_nested_draws_of_every_pair_of_numbers():
    calls = []

    def fit_and_score(outlined, recorded):
        calls.append((list(outlined), list(recorded)))
        return len(outlined) + 0.1 * len(recorded)

    curve = learning_curve(
        fit_and_score,
        list("abcde"),
        list("vwxyz"),
        n_outlined=[1, 3],
        n_recorded=[0, 5],
        n_repeats=2,
    )
    assert curve[["repeat", "n_outlined", "n_recorded"]].values.tolist() == [
        [r, n, m] for r in range(2) for n in (1, 3) for m in (0, 5)
    ]
    assert_allclose(curve["score"], curve["n_outlined"] + 0.1 * curve["n_recorded"])
    for few, many in ((calls[0], calls[2]), (calls[4], calls[6])):
        assert many[0][:1] == few[0] and len(set(many[0])) == 3
    assert calls[0][0] != calls[4][0] or calls[1][1] != calls[5][1]  # another draw
    for wrong in ([0], [6], []):
        with pytest.raises(ValueError, match="n_outlined must hold numbers from 1 to 5"):
            learning_curve(fit_and_score, list("abcde"), [], n_outlined=wrong)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_gain_of_a_power_law_is_found_again(exponent):
    rng = np.random.default_rng(0)
    numbers = np.array([1, 2, 4, 8])

    def score(n):
        return 0.9 - 0.4 * n**-exponent

    rows = [(r, n, 40, score(n) + rng.normal(0, 0.002)) for r in range(20) for n in numbers]
    curve = pd.DataFrame(rows, columns=["repeat", "n_outlined", "n_recorded", "score"])
    gain, low, high = expected_gain(curve, 5)
    expected = score(13.0) - score(8.0)
    assert gain == pytest.approx(expected, abs=0.006)
    assert low <= gain <= high and high - low < 0.02
    with pytest.raises(ValueError, match="three or more numbers"):
        expected_gain(curve[curve["n_outlined"] < 4], 5)


def test_a_flat_curve_promises_nothing():
    rows = [(r, n, 0, 0.7) for r in range(3) for n in (1, 2, 3)]
    curve = pd.DataFrame(rows, columns=["repeat", "n_outlined", "n_recorded", "score"])
    assert_allclose(expected_gain(curve, 5), 0, atol=1e-9)


def test_suggestions_by_hand():
    probabilities = [[1, 0], [1, 0], [0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [0.1, 0.9]]
    lower = np.array([[0.0, 1.0], [0.3, 0.3], [0.5, 0.5]])
    upper = np.array([[0.0, 1.0], [0.7, 0.7], [0.5, 0.5]])
    table = suggest_slides(probabilities, [0, 0, 1, 1, 2, 2], lower, upper, names=["a", "b", "c"])
    assert_allclose(table.loc["a", ["distance", "uncertainty"]].astype(float), [2, 0])
    assert_allclose(table.loc["b", ["distance", "uncertainty"]].astype(float), [0.6, 0.9])
    assert_allclose(table.loc["c", ["distance", "uncertainty"]].astype(float), [0, 0.2])
    assert table.index.tolist() == ["b", "c", "a"]
    assert_allclose(table["outline"], [1, 1, 0], atol=1e-12)
    assert_allclose(table.loc[["a", "b", "c"], "reread"], [2, 0.06, 0])
    assert table["outline_rank"].tolist() == [1, 2, 3]
    assert table["reread_rank"].to_dict() == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(ValueError, match="one index from 0 to 2"):
        suggest_slides(probabilities, [0] * 6, lower, upper)
    with pytest.raises(ValueError, match="lower and upper must have shape"):
        suggest_slides(probabilities, [0, 0, 1, 1, 2, 2], lower[:, :1], upper[:, :1])


@pytest.mark.slow
def test_suggested_outlines_beat_random_ones():
    """20 synthetic cohorts, 2 labeled slides and 3 more: mean IoU on new slides."""
    gains = []
    for seed in range(20):
        data = make_bags(40, n_labeled_slides=2, class_separation=1.0, random_state=seed)
        bags, rng = data.bags, np.random.default_rng(seed)

        def score(chosen, data=data, bags=bags):
            more = np.isin(bags.index, chosen)
            X = np.vstack([data.X_labeled, bags.X[more]])
            y = np.concatenate([data.y, data.y_bags[more]])
            model = LogisticRegression(max_iter=500).fit(X, y)
            return mean_iou_score(data.y_test, model.predict(data.X_test))

        probabilities = np.full((bags.n_instances, 4), 0.25)
        table = suggest_slides(probabilities, bags.index, bags.lower, bags.upper)
        random = np.mean([score(rng.permutation(40)[:3]) for _ in range(4)])
        gains.append(score(table.index[:3]) - random)
    assert np.mean(gains) > 1.7 * stats.sem(gains)


def test_exchanged_records_are_found_to_read_again():
    """8 of 40 records whose largest and smallest share are exchanged, and a fair classifier."""
    data = make_bags(40, class_separation=1.0, random_state=0)
    bags, rng = data.bags, np.random.default_rng(0)
    model = LogisticRegression(max_iter=500).fit(data.X_labeled, data.y)
    wrong, records = rng.permutation(40)[:8], bags.proportions.copy()
    order = np.argsort(records[wrong], axis=1)
    for bag, ranks in zip(wrong, order, strict=True):
        records[bag, ranks[[0, -1]]] = records[bag, ranks[[-1, 0]]]
    table = suggest_slides(model.predict_proba(bags.X), bags.index, records, records)
    first = table.sort_values("reread_rank").index[:8]
    assert np.isin(first, wrong).mean() >= 0.6  # 0.2 by chance
