"""scikit-learn's own checks on everything that claims to be an estimator of plain arrays."""

import numpy as np
import pandas as pd
from estimator_checks import parametrize_with_checks
from scipy.special import softmax

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
    ContextClassifier,
    CountLikelihoodClassifier,
    FixMatchClassifier,
    FixMatchProportionClassifier,
    ICTClassifier,
    InverseCalibrationClassifier,
    L2PAHILClassifier,
    LLPGANClassifier,
    LLPVATClassifier,
    LPLPClassifier,
    MeanMapClassifier,
    MeanTeacherClassifier,
    MixMatchClassifier,
    MixupClassifier,
    NLNLClassifier,
    NoisyStudentClassifier,
    NonparallelSVMClassifier,
    ProportionLossClassifier,
    ProportionSVMClassifier,
    SoftMatchClassifier,
    VATClassifier,
)
from proportion_ssl.heads import (
    DiscriminantClassifier,
    SoftLabelHead,
    SoftLogisticRegression,
)


class OfScores:
    """A selector of any numbers, as the checks hand them over: it is given their softmax."""

    def transform(self, X, **kwargs):
        return super().transform(_softmax(X), **kwargs)


def _softmax(X):
    """Probabilities of numbers; all else as it is, for the selector to refuse."""
    try:
        numbers = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError):
        return X
    if numbers.ndim != 2 or not numbers.size or not np.isfinite(numbers).all():
        return X
    probabilities = softmax(numbers, axis=1)
    if hasattr(X, "columns"):
        return pd.DataFrame(probabilities, columns=X.columns, index=X.index)
    return probabilities


class Adaptive(OfScores, AdaptiveSelector):
    pass


class Assignment(OfScores, AssignmentSelector):
    pass


class SoftAssignment(OfScores, SoftAssignmentSelector):
    pass


class Negative(OfScores, NegativeSelector):
    pass


class Threshold(OfScores, ThresholdSelector):
    pass


def expected_failed_checks(estimator):
    """An instance of weight 2 is no two instances: these would be of two slides, or left out apart."""
    if not isinstance(estimator, SoftLabelHead):
        return {}
    reason = "weights say what labels count; shrinkage and temperature take each instance as one"
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@parametrize_with_checks(
    [
        NegativePseudoLabelClassifier(max_epochs=40, random_state=0),
        RobustProportionClassifier(random_state=0),
        AssignmentClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        FixMatchClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        ICTClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        InverseCalibrationClassifier(),
        LLPGANClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        LLPVATClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        MeanMapClassifier(),
        MeanTeacherClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        MixMatchClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        MixupClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        NLNLClassifier(learning_rate=0.05, random_state=0),
        NoisyStudentClassifier(max_epochs=20, n_rounds=1, learning_rate=0.05, random_state=0),
        NonparallelSVMClassifier(),
        ProportionLossClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        ProportionSVMClassifier(random_state=0),
        SoftMatchClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        VATClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        ContextClassifier(max_epochs=1, n_folds=2, random_state=0),
        CountLikelihoodClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        L2PAHILClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        FixMatchProportionClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        LPLPClassifier(max_epochs=20, learning_rate=0.05, random_state=0),
        NegativePseudoLabelClassifier(DiscriminantClassifier()),
        DiscriminantClassifier(),
        SoftLogisticRegression(),
        Adaptive(),
        Assignment(),
        SoftAssignment(),
        Negative(),
        Threshold(),
    ],
    expected_failed_checks,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
