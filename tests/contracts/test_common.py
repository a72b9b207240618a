"""scikit-learn's own checks on everything that claims to be an estimator of plain arrays."""

from estimator_checks import parametrize_with_checks

from proportion_ssl import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    RobustProportionClassifier,
    SoftAssignmentSelector,
    ThresholdSelector,
)
from proportion_ssl.baselines import (
    AssignmentClassifier,
    FixMatchClassifier,
    ICTClassifier,
    LLPVATClassifier,
    MeanTeacherClassifier,
    MixupClassifier,
    ProportionLossClassifier,
    SoftMatchClassifier,
    VATClassifier,
)


@parametrize_with_checks(
    [
        NegativePseudoLabelClassifier(max_epochs=40, random_state=0),
        RobustProportionClassifier(random_state=0),
        AssignmentClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        FixMatchClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        ICTClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        LLPVATClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        MeanTeacherClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        MixupClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        ProportionLossClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        SoftMatchClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        VATClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        AdaptiveSelector(),
        AssignmentSelector(),
        SoftAssignmentSelector(),
        NegativeSelector(),
        ThresholdSelector(),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
