"""Every system of the paper's tables and their modern rivals, each with its grid of three settings.

A system is a function of the protocol's training settings to an estimator. All grids hold three settings, of
the one parameter that its authors tune, or of the learning rate where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proportion_ssl import (
    PAPER_SETTINGS,
    AdaptiveSelector,
    HeadClassifier,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    ThresholdSelector,
)
from proportion_ssl.baselines import (
    AssignmentClassifier,
    FixMatchClassifier,
    ICTClassifier,
    LLPVATClassifier,
    MeanMapClassifier,
    MeanTeacherClassifier,
    MixBag,
    MixupClassifier,
    ProportionLossClassifier,
    ProportionSVMClassifier,
    SoftMatchClassifier,
    VATClassifier,
)
from proportion_ssl.losses import NegativeLoss, pairwise_comparison_loss

#: Training settings of the protocols; what is not named is a default of the package.
PROTOCOLS = {
    "fast": {},
    "paper": {
        name: PAPER_SETTINGS[name]
        for name in ("learning_rate", "batch_size", "max_epochs", "patience")
    },
}
#: What the paper prints: OP, PC, mIoU.
PRINTED = {
    "Supervised": (0.576, 0.527, 0.373),
    "Pseudo labeling": (0.618, 0.575, 0.420),
    "ICT": (0.461, 0.430, 0.289),
    "Mean teacher": (0.449, 0.421, 0.270),
    "mixup": (0.529, 0.476, 0.324),
    "VAT": (0.477, 0.427, 0.281),
    "Adaptive": (0.613, 0.565, 0.412),
    "Single negative": (0.563, 0.508, 0.348),
    "Multi negative": (0.551, 0.478, 0.336),
    "Adaptive + single": (0.621, 0.585, 0.426),
    "Proposed": (0.636, 0.588, 0.435),
}
TABLE_1 = ("Supervised", "Pseudo labeling", "ICT", "Mean teacher", "mixup", "VAT", "Proposed")
TABLE_2 = ("Adaptive", "Single negative", "Multi negative", "Adaptive + single", "Proposed")


@dataclass(frozen=True)
class System:
    """How a system is made, and what its settings are chosen from."""

    make: Callable
    grid: tuple[dict, ...]
    uses_labels_of_bags: bool = False


def _each(name, *values):
    return tuple({name: value} for value in values)


def _npl(**settings):
    return lambda training: NegativePseudoLabelClassifier(
        HeadClassifier(), **{**training, **settings}
    )


def _two_streams(cls, **settings):
    return lambda training: cls(**{**training, **settings})


def _without_net(cls):
    return lambda training: cls()  # no epochs, no learning rate


NO_LABELS = {"positive_selector": None, "negative_selector": None}
DECAYS = _each("estimator__weight_decay", 1.0, 3.0, 10.0)
MEMORY = _each("negative_memory", 1, 3, 10)

SYSTEMS = {
    "Supervised": System(_npl(**NO_LABELS), DECAYS),
    "Pseudo labeling": System(
        _npl(negative_selector=None),
        _each("positive_selector", *(ThresholdSelector(t) for t in (0.9, 0.95, 0.99))),
    ),
    "ICT": System(_two_streams(ICTClassifier), _each("weight", 1.0, 10.0, 50.0)),
    "Mean teacher": System(_two_streams(MeanTeacherClassifier), _each("weight", 1.0, 10.0, 50.0)),
    "mixup": System(_two_streams(MixupClassifier), _each("alpha", 0.1, 0.4, 1.0)),
    "VAT": System(_two_streams(VATClassifier), _each("epsilon", 1.0, 3.0, 10.0)),
    "Adaptive": System(_npl(positive_selector=AdaptiveSelector(), negative_selector=None), DECAYS),
    "Single negative": System(_npl(positive_selector=None, multi_negative=False), DECAYS),
    "Multi negative": System(_npl(positive_selector=None), MEMORY),
    "Adaptive + single": System(_npl(multi_negative=False), DECAYS),
    "Proposed": System(_npl(), MEMORY),
    "Proposed, complementary loss": System(
        _npl(negative_loss=NegativeLoss(pairwise_comparison_loss)), MEMORY
    ),
    "Proportion loss": System(
        _two_streams(ProportionLossClassifier), _each("weight", 0.3, 1.0, 3.0)
    ),
    "MixBag": System(
        _two_streams(ProportionLossClassifier, augmentation=MixBag()),
        _each("weight", 0.3, 1.0, 3.0),
    ),
    "LLP-VAT": System(_two_streams(LLPVATClassifier), _each("epsilon", 1.0, 3.0, 10.0)),
    "Assignment": System(_two_streams(AssignmentClassifier), _each("share", 0.0, 0.5, 0.8)),
    "LLP-DC": System(
        _two_streams(AssignmentClassifier, share=2 / 3, weight=1.5), _each("gate", 0.4, 0.6, 0.8)
    ),
    "ROT": System(
        _two_streams(AssignmentClassifier, temperature=1.0), _each("share", 0.2, 0.6, 0.8)
    ),
    "FixMatch": System(_two_streams(FixMatchClassifier), _each("threshold", 0.8, 0.9, 0.95)),
    "SoftMatch": System(_two_streams(SoftMatchClassifier), _each("strong_noise", 0.1, 0.3, 0.6)),
    "Mean map": System(_without_net(MeanMapClassifier), _each("C", 1e-5, 1e-4, 1e-3)),
    "Proportion-SVM": System(_without_net(ProportionSVMClassifier), _each("C", 2e-4, 8e-4, 3e-3)),
    "Robust": System(_without_net(RobustProportionClassifier), _each("doubt", 0.3, 0.4, 0.6)),
    "Ceiling": System(_npl(**NO_LABELS), DECAYS, uses_labels_of_bags=True),
}
