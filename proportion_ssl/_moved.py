"""Names of version 0.1 that have moved; the old import paths still work, with a warning."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

_FROM_TOP = {
    "embedding": """ExportedFileError NotInstalledError""",
    "estimators": """Proposals""",
    "losses": """GradientAscentComplementaryLoss MultiComplementaryLoss MultiNegativeLoss
        NegativeLoss NonNegativeComplementaryLoss OneVersusAllLoss
        PairwiseComparisonLoss PositiveLoss SignedLabelLoss
        UnbiasedComplementaryLoss log_not multi_complementary_loss
        multi_negative_loss negative_loss one_versus_all_loss
        pairwise_comparison_loss positive_loss proportion_loss
        unbiased_complementary_loss""",
    "metrics": """SegmentationConfusion mean_iou_scorer overall_pixel_scorer
        per_class_scorer proportion_error proportion_error_scorer
        segmentation_confusion_matrix""",
    "nets": """AdaptiveFusion FixedFusion SignedLabelNet""",
    "persistence": """ModelFileError""",
    "proportions": """IdentifiabilityWarning class_proportions count_per_bag
        identifiability sum_absolute_error""",
    "pseudo_labels": """Selector merge_rounds negative_selectivity
        pick_least_confident pick_most_confident positive_selectivity
        selection_counts sign_labels""",
}

FROM_TOP = {name: package for package, names in _FROM_TOP.items() for name in names.split()}
"""Names formerly in ``proportion_ssl``, and the package that contains them now."""

FROM_NETS = {
    **dict.fromkeys(("BagBatch", "BagLoss", "BagStream", "TwoStreamLoss", "ramp"), "baselines"),
    **dict.fromkeys(
        (
            *("MobileNetV2Features", "PixelNormalization", "RandomFilterFeatures"),
            *("WeightsNotAvailableError", "compile_features", "load_mobilenet_v2"),
        ),
        "embedding",
    ),
}
"""Names formerly in ``proportion_ssl.nets``."""

FROM_DATASETS = dict.fromkeys(("Cohort", "load_cohort"), "manifest")
"""Names formerly in ``proportion_ssl.datasets``."""


def follow(
    package: str, moved: Mapping[str, str], otherwise: Callable[[str], Any] | None = None
) -> Callable[[str], Any]:
    """Create a ``__getattr__`` for `package` that finds moved names and warns.

    Parameters
    ----------
    package : str
        Dotted name of the former package.
    moved : mapping from name to package
        New package of each name, relative to ``proportion_ssl``.
    otherwise : callable, optional
        Finds names that have not moved.

    Returns
    -------
    getattr : callable
    """

    def __getattr__(name: str) -> Any:
        if name not in moved:
            if otherwise is not None:
                return otherwise(name)
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = f"proportion_ssl.{moved[name]}"
        warnings.warn(
            f"{package}.{name} has moved; use from {home} import {name}. The old import will be removed in "
            "version 0.3.",
            FutureWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(home), name)

    return __getattr__
