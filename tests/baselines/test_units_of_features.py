"""Classifiers that are solved for do not depend on the unit of the features."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    SoftAssignmentSelector,
)
from proportion_ssl.baselines import (
    InverseCalibrationClassifier,
    MeanMapClassifier,
    NonparallelSVMClassifier,
    ProportionSVMClassifier,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.heads import DiscriminantClassifier, SoftLogisticRegression

#: Bags are larger than labeled slides and hard to predict, so that small changes show.
DATA = make_bags(
    n_bags=16,
    n_classes=5,
    bag_size=(2, 150),
    class_separation=0.7,
    slide_shift=1.5,
    proportion_noise=0.15,
    n_features=10,
    random_state=12,
)
SOFT = {"positive_selector": SoftAssignmentSelector(), "negative_selector": None}
CLASSIFIERS = {
    "inverse calibration": InverseCalibrationClassifier(),
    "mean map": MeanMapClassifier(),
    "alternating mean map": MeanMapClassifier(laplacian=0.01, alternating=True),
    "nonparallel SVM": NonparallelSVMClassifier(),
    "preset": RobustProportionClassifier(random_state=0),
    "discriminant": NegativePseudoLabelClassifier(DiscriminantClassifier(), **SOFT, random_state=0),
    "logistic": NegativePseudoLabelClassifier(SoftLogisticRegression(), **SOFT, random_state=0),
}


def predicted(classifier, unit, with_bags=True, origin=0.0):
    X, X_bags, X_test = (
        (np.asarray(part) + np.float32(origin)) * np.float32(unit)
        for part in (DATA.X_labeled, DATA.bags.X, DATA.X_test)
    )
    bags = Bags(X_bags, DATA.bags.index, DATA.bags.proportions)
    given = (X, DATA.y, bags) if with_bags else (X, DATA.y)
    return clone(classifier).fit(*given).predict(X_test)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_unit_of_the_features_does_not_matter(name):
    """Powers of two, by which nothing is rounded."""
    expected = predicted(CLASSIFIERS[name], 1)
    assert len(np.unique(expected)) > 1
    for exponent in (-20, -10, 8, 20):
        assert_array_equal(predicted(CLASSIFIERS[name], 2.0**exponent), expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_origin_of_the_features_does_not_matter(name):
    """Up to the rounding of the features."""
    expected = predicted(CLASSIFIERS[name], 1)
    assert (predicted(CLASSIFIERS[name], 1, origin=100.0) != expected).mean() < 0.01


def test_unit_of_the_features_does_not_matter_to_support_vectors():
    """With bags, other labels would be drawn to start from."""
    expected = predicted(ProportionSVMClassifier(), 1, with_bags=False)
    for exponent in (-20, 20):
        found = predicted(ProportionSVMClassifier(), 2.0**exponent, with_bags=False)
        assert_array_equal(found, expected)
    moved = predicted(ProportionSVMClassifier(), 1, with_bags=False, origin=100.0)
    assert (moved != expected).mean() < 0.01
