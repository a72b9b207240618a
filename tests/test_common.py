"""scikit-learn's own checks on everything that claims to be an estimator of plain arrays."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from proportion_ssl import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    RobustProportionClassifier,
    ThresholdSelector,
)


@parametrize_with_checks(
    [
        NegativePseudoLabelClassifier(max_epochs=40, random_state=0),
        RobustProportionClassifier(NegativePseudoLabelClassifier(max_epochs=40), random_state=0),
        AdaptiveSelector(),
        AssignmentSelector(),
        NegativeSelector(),
        ThresholdSelector(),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
