"""Features of any memory layout: columns in order, views, reversed."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from proportion_ssl import Bags, NegativePseudoLabelClassifier, RobustProportionClassifier
from proportion_ssl.baselines import ProportionLossClassifier
from proportion_ssl.datasets import make_bags

DATA = make_bags(n_bags=12, bag_size=15, n_features=6, random_state=0)
LAYOUTS = {
    "columns": np.asfortranarray,
    "chosen columns": lambda X: np.hstack([X, X])[:, [6, 1, 2, 9, 4, 5]],
    "steps": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    "model",
    [
        RobustProportionClassifier(random_state=0),
        NegativePseudoLabelClassifier(max_epochs=2, random_state=0),
        ProportionLossClassifier(max_epochs=2, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_layout_changes_nothing(model, layout):
    expected = model.fit(DATA.X_labeled, DATA.y, DATA.bags).predict_proba(DATA.X_test)
    moved = layout(DATA.bags.X)
    assert_allclose(moved, DATA.bags.X)
    assert not moved.flags.c_contiguous
    bags = Bags(moved, DATA.bags.index, DATA.bags.proportions)
    clf = model.fit(layout(DATA.X_labeled), DATA.y, bags)
    assert_allclose(clf.predict_proba(layout(DATA.X_test)), expected, rtol=1e-5)
