"""Score by the number of outlined cases: nobody is judged on what was learned from."""

from itertools import pairwise

import numpy as np
import pytest
from cohorts import write_cohort

from proportion_ssl import RobustProportionClassifier
from proportion_ssl.evaluation import expected_gain
from proportion_ssl.segmenter import outlook
from proportion_ssl.segmenter.outlook import N_REPEATS, outline_curve


@pytest.fixture(scope="module")
def five(tmp_path_factory, make):
    manifest = write_cohort(tmp_path_factory.mktemp("five"), labeled=5, bags=2, test=0)
    return make(proposer=None).read_cohort(manifest, features=tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def make():
    from conftest import make_segmenter

    return make_segmenter


def test_cases_that_judge_are_not_learned_from(five, monkeypatch):
    seen, judged = [], []

    class Constant:
        classes_ = np.array(five.cohort.classes)

        def predict_proba(self, X):
            judged.append(len(X))
            return np.tile([0.9, 0.1], (len(X), 1))

    def fit(data, names, bags, classifier, records):
        seen.append(tuple(names))
        assert bags.n_bags == 2 and records
        return Constant()

    monkeypatch.setattr(outlook, "fit_classifier", fit)
    curve = outline_curve(five, None, None)
    assert curve["repeat"].unique().tolist() == list(range(N_REPEATS))
    assert (curve["n_recorded"] == 2).all()
    per_draw = len(seen) // N_REPEATS
    for k in range(N_REPEATS):
        draw = seen[k * per_draw : (k + 1) * per_draw]
        assert [len(names) for names in draw] == [1, 2, 3, 4]
        assert all(set(a) < set(b) for a, b in pairwise(draw))
        (left,) = set(five.labeled) - set(draw[-1])
        n = np.isin(five.outlined[left].labels.astype(str), five.cohort.classes).sum()
        assert judged[k * per_draw : (k + 1) * per_draw] == [n] * per_draw
        acinar = (five.outlined[left].labels == "acinar").sum()
        assert curve.loc[curve["repeat"] == k, "score"].tolist() == pytest.approx(
            [acinar / n / 2] * 4
        )


@pytest.mark.slow
def test_more_outlines_do_not_harm_and_the_gain_is_computed(five):
    curve = outline_curve(five, None, RobustProportionClassifier(random_state=0))
    assert curve["score"].between(0, 1).all() and curve["n_outlined"].max() == 4
    gain, low, high = expected_gain(curve, 4)
    assert 0 <= low <= gain <= high or gain == pytest.approx(low)


def test_three_cases_are_too_few(fitted, manifest, features):
    data = fitted.read_cohort(manifest, features=features)
    assert outline_curve(data, None, None) is None
