"""Evaluation functions on arrays: intervals, agreement, calibration, uncertainty, planning.

The sampling unit is the slide or case, not the patch. Intervals and comparisons resample slides or cases;
calibration and conformal intervals are fitted on slides that the model did not see.
"""

from proportion_ssl.evaluation._agreement import (
    Estimate,
    concordance_correlation,
    intraclass_correlation,
    proportion_agreement,
)
from proportion_ssl.evaluation._calibration import (
    Reliability,
    apply_temperature,
    fit_temperature,
    fit_temperature_to_records,
    reliability,
)
from proportion_ssl.evaluation._conformal import conformal_errors, conformal_intervals
from proportion_ssl.evaluation._confusions import confusion_scores, slide_confusions
from proportion_ssl.evaluation._grading import (
    IASLC_2020,
    GradingScheme,
    grade,
    predominant_class,
)
from proportion_ssl.evaluation._planning import expected_gain, learning_curve, suggest_slides
from proportion_ssl.evaluation._readers import cohen_kappa, compare_readers
from proportion_ssl.evaluation._resampling import (
    ScoreInterval,
    adjust_p_values,
    bootstrap_scores,
    compare_systems,
)
from proportion_ssl.evaluation._uncertainty import (
    RiskCoverage,
    entropy_uncertainty,
    margin_uncertainty,
    risk_coverage,
)

__all__ = [
    "IASLC_2020",
    "Estimate",
    "GradingScheme",
    "Reliability",
    "RiskCoverage",
    "ScoreInterval",
    "adjust_p_values",
    "apply_temperature",
    "bootstrap_scores",
    "cohen_kappa",
    "compare_readers",
    "compare_systems",
    "concordance_correlation",
    "conformal_errors",
    "conformal_intervals",
    "confusion_scores",
    "entropy_uncertainty",
    "expected_gain",
    "fit_temperature",
    "fit_temperature_to_records",
    "grade",
    "intraclass_correlation",
    "learning_curve",
    "margin_uncertainty",
    "predominant_class",
    "proportion_agreement",
    "reliability",
    "risk_coverage",
    "slide_confusions",
    "suggest_slides",
]
