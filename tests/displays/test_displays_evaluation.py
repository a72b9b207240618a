"""Pictures of agreement, calibration and abstention: what is drawn, where."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from proportion_ssl.displays import BlandAltmanDisplay, ReliabilityDisplay, RiskCoverageDisplay
from proportion_ssl.evaluation import proportion_agreement, reliability, risk_coverage


@pytest.fixture(autouse=True)
def _agg():
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


@pytest.fixture
def shares():
    rng = np.random.default_rng(0)
    recorded = pd.DataFrame(rng.dirichlet([1, 1, 1], 12), columns=["acinar", "solid", "other"])
    predicted = recorded * np.exp(rng.normal(0, 0.2, recorded.shape))
    return recorded, predicted.div(predicted.sum(axis=1), axis=0)


def test_bland_altman_draws_differences_and_the_numbers_of_the_table(shares):
    recorded, predicted = shares
    recorded.iloc[3] = np.nan
    display = BlandAltmanDisplay.from_predictions(recorded, predicted)
    table = proportion_agreement(recorded, predicted)
    assert_allclose(display.lines, table[["limit_low", "bias", "limit_high"]])
    for c, name in enumerate(recorded):
        axes = display.axes_[c]
        (points,) = axes.collections
        x, y = np.asarray(points.get_offsets()).T
        kept = recorded[name].notna()
        assert_allclose(y, (predicted - recorded)[name][kept])
        assert_allclose(x, ((predicted + recorded) / 2)[name][kept])
        drawn = [line.get_ydata()[0] for line in axes.lines]
        assert_allclose(drawn, [0, *display.lines[c]])
        assert axes.get_title() == name
        low, high = axes.get_ylim()
        assert low <= min(y.min(), *drawn) and high >= max(y.max(), *drawn)


def test_bland_altman_of_one_bag_has_no_limits():
    display = BlandAltmanDisplay.from_predictions([[0.5, 0.5]], [[0.4, 0.6]])
    assert [len(axes.lines) for axes in display.axes_] == [2, 2]
    with pytest.raises(ValueError, match="names 3 classes"):
        BlandAltmanDisplay([[0.5, 0.5]], [[0.4, 0.6]], classes=["a", "b", "c"])


def test_reliability_draws_bins():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 2))
    y = (X[:, 0] + rng.normal(size=200) > 0).astype(int)
    model = LogisticRegression().fit(X, y)
    display = ReliabilityDisplay.from_estimator(model, X, y, n_bins=5)
    found = reliability(y, model.predict_proba(X), n_bins=5)
    line = display.ax_.lines[1]
    assert_allclose(line.get_xdata(), found.bins["confidence"])
    assert_allclose(line.get_ydata(), found.bins["accuracy"])
    assert_allclose([bar.get_height() for bar in display.axes_[1].patches], found.bins["n"])
    assert f"{found.ece:.3f}" in display.ax_.get_title()


def test_risk_coverage_curves_share_axes():
    right, unsure = [True, False, True, False], [0.1, 0.4, 0.2, 0.9]
    first = RiskCoverageDisplay.from_predictions(right, unsure, name="A")
    second = RiskCoverageDisplay.from_predictions(right, [0.5] * 4, name="B", ax=first.ax_)
    curve = risk_coverage(right, unsure)
    assert_allclose(first.line_.get_xdata(), curve.coverage)
    assert_allclose(first.line_.get_ydata(), curve.risk)
    assert second.ax_ is first.ax_
    labels = [text.get_text() for text in second.ax_.get_legend().get_texts()]
    assert labels == [f"A ({curve.area:.3f})", "B (0.500)"]
    assert second.ax_.get_ylim()[1] > 0.5
