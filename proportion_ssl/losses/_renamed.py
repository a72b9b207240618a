"""Classes of version 0.1 that are now settings of ``NegativeLoss``."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from proportion_ssl.losses.complementary import (
    gradient_ascent_complementary_loss,
    multi_complementary_loss,
    non_negative_complementary_loss,
    one_versus_all_loss,
    pairwise_comparison_loss,
    unbiased_complementary_loss,
)
from proportion_ssl.losses.signed_labels import NegativeLoss, multi_negative_loss

#: Former class: the function that it averaged.
FORMER: dict[str, Callable] = {
    "GradientAscentComplementaryLoss": gradient_ascent_complementary_loss,
    "MultiComplementaryLoss": multi_complementary_loss,
    "MultiNegativeLoss": multi_negative_loss,
    "NonNegativeComplementaryLoss": non_negative_complementary_loss,
    "OneVersusAllLoss": one_versus_all_loss,
    "PairwiseComparisonLoss": pairwise_comparison_loss,
    "UnbiasedComplementaryLoss": unbiased_complementary_loss,
}


def find(name: str) -> Any:
    """Return a factory that replaces a former class, with a warning."""
    if name not in FORMER:
        raise AttributeError(f"module 'proportion_ssl.losses' has no attribute {name!r}")
    function = FORMER[name]
    warnings.warn(
        f"proportion_ssl.losses.{name}() is now NegativeLoss({function.__name__}). The old name will "
        "be removed in version 0.3.",
        FutureWarning,
        stacklevel=2,
    )

    def make(class_losses: Callable | None = None) -> NegativeLoss:
        settings = {} if class_losses is None else {"class_losses": class_losses}
        return NegativeLoss(partial(function, **settings) if settings else function)

    return make
