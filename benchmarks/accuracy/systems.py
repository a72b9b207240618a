"""Every system of the paper's tables and their modern rivals, each with the grids of its settings.

A system is a function of the protocol's training settings to an estimator. All nets choose their weight decay
from the same three values, then one of three settings of the parameter that the authors of the system tune.
Systems without a net choose the strength of their regularization in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    CountLikelihoodClassifier,
    FixMatchClassifier,
    FixMatchProportionClassifier,
    HypergeometricTargets,
    ICTClassifier,
    InverseCalibrationClassifier,
    L2PAHILClassifier,
    LLPGANClassifier,
    LLPVATClassifier,
    MeanMapClassifier,
    MeanTeacherClassifier,
    MixBag,
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
from proportion_ssl.heads import DiscriminantClassifier
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
    """How a system is made, and the grids from which its settings are chosen, one after the other."""

    make: Callable
    grids: tuple[tuple[dict, ...], ...]
    uses_labels_of_bags: bool = False
    uses_slides: bool = False  # of labeled patches; nets validate by patches, as in print
    uses_records: bool = True  # otherwise one fit serves all kinds of records


class CountingHead(HeadClassifier):
    """The head of all nets, which counts its optimization steps."""

    n_steps = 0

    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)
        CountingHead.n_steps += net.history[-1, "train_batch_count"]


class PerFeature(float):
    """A value that is divided by the number of (standardized) features, as penalties of weights are."""


def _each(name, *values):
    return tuple({name: value} for value in values)


def _penalty(name, *values):
    return _each(name, *map(PerFeature, values))


DECAYS = _each("estimator__weight_decay", 1.0, 3.0, 10.0)
MEMORY = _each("negative_memory", 1, 3, 10)


def _npl(*grids, uses_labels_of_bags=False, **settings):
    return System(
        lambda training: NegativePseudoLabelClassifier(CountingHead(), **{**training, **settings}),
        (DECAYS, *grids),
        uses_labels_of_bags=uses_labels_of_bags,
    )


def _two_streams(cls, grid, *, uses_records=True, **settings):
    return System(
        lambda training: cls(CountingHead(), **{**training, **settings}),
        (DECAYS, grid),
        uses_records=uses_records,
    )


def _semi_supervised(cls, grid):
    """Uses the patches of the bags without their records."""
    return _two_streams(cls, grid, uses_records=False)


def _without_net(cls, *grids, uses_slides=False, **settings):
    # no epochs, no learning rate
    return System(lambda training: cls(**settings), grids, uses_slides=uses_slides)


def _solved(head, grid=(), **settings):
    """The published loop with a head that is solved instead of trained."""
    return System(
        lambda training: NegativePseudoLabelClassifier(head(), **settings),
        (grid,) if grid else (),
        uses_slides=True,
    )


def _nlnl(training):
    """Its phases have epochs of their own and do not stop early."""
    kept = {name: training[name] for name in ("learning_rate", "batch_size") if name in training}
    return NLNLClassifier(CountingHead(), **kept)


NO_LABELS = {"positive_selector": None, "negative_selector": None}
WEIGHTS = _each("weight", 0.3, 1.0, 3.0)
MAP_C = _penalty("C", 0.01, 0.1, 1.0)
SVM_C = _penalty("C", 0.25, 1.0, 4.0)
CONSISTENCY = _each("weight", 1.0, 10.0, 50.0)

SYSTEMS = {
    "Supervised": _npl(**NO_LABELS),
    "Pseudo labeling": _npl(
        _each("positive_selector", *(ThresholdSelector(t) for t in (0.9, 0.95, 0.99))),
        negative_selector=None,
    ),
    "ICT": _semi_supervised(ICTClassifier, CONSISTENCY),
    "Mean teacher": _semi_supervised(MeanTeacherClassifier, CONSISTENCY),
    "mixup": _semi_supervised(MixupClassifier, _each("alpha", 0.1, 0.4, 1.0)),
    "VAT": _semi_supervised(VATClassifier, _each("epsilon", 1.0, 3.0, 10.0)),
    "VAT + EntMin": _semi_supervised(VATClassifier, _each("entropy_weight", 0.1, 0.3, 1.0)),
    "MixMatch": _semi_supervised(MixMatchClassifier, _each("weight", 3.0, 10.0, 30.0)),
    "Noisy Student": _semi_supervised(NoisyStudentClassifier, _each("drop", 0.2, 0.5, 0.7)),
    "NLNL": System(_nlnl, (DECAYS, _each("max_epochs", 10, 20, 50)), uses_records=False),
    "Adaptive": _npl(positive_selector=AdaptiveSelector(), negative_selector=None),
    "Single negative": _npl(MEMORY, positive_selector=None, multi_negative=False),
    "Multi negative": _npl(MEMORY, positive_selector=None),
    "Adaptive + single": _npl(MEMORY, multi_negative=False),
    "Proposed": _npl(MEMORY),
    "Proposed, complementary loss": _npl(
        MEMORY, negative_loss=NegativeLoss(pairwise_comparison_loss)
    ),
    "Proposed, discriminant head": _solved(DiscriminantClassifier, MEMORY),
    "Proportion loss": _two_streams(ProportionLossClassifier, WEIGHTS),
    "MixBag": _two_streams(ProportionLossClassifier, WEIGHTS, augmentation=MixBag()),
    "LLP-LargeBags": _two_streams(
        ProportionLossClassifier, WEIGHTS, augmentation=HypergeometricTargets()
    ),
    "LLP-GAN": _two_streams(LLPGANClassifier, _each("adversarial_weight", 0.1, 0.3, 1.0)),
    "Count likelihood": _two_streams(CountLikelihoodClassifier, _each("weight", 0.1, 0.3, 1.0)),
    "L2P-AHIL": _two_streams(L2PAHILClassifier, _each("label_weight", 0.1, 0.5, 2.0)),
    "LLP-VAT": _two_streams(LLPVATClassifier, _each("epsilon", 1.0, 3.0, 10.0)),
    "Assignment": _two_streams(AssignmentClassifier, _each("share", 0.0, 0.5, 0.8)),
    "LLP-DC": _two_streams(
        AssignmentClassifier, _each("gate", 0.4, 0.6, 0.8), share=2 / 3, weight=1.5
    ),
    "ROT": _two_streams(AssignmentClassifier, _each("share", 0.2, 0.6, 0.8), temperature=1.0),
    "FixMatch": _semi_supervised(FixMatchClassifier, _each("threshold", 0.8, 0.9, 0.95)),
    "FixMatch + proportion loss": _two_streams(
        FixMatchProportionClassifier, _each("proportion_weight", 0.3, 1.0, 3.0)
    ),
    "SoftMatch": _semi_supervised(SoftMatchClassifier, _each("strong_noise", 0.1, 0.3, 0.6)),
    "Mean map": _without_net(MeanMapClassifier, MAP_C),
    "Laplacian mean map": _without_net(MeanMapClassifier, _each("laplacian", 0.1, 1.0, 10.0)),
    "Alternating mean map": _without_net(MeanMapClassifier, MAP_C, alternating=True),
    "Proportion-SVM": _without_net(ProportionSVMClassifier, SVM_C),
    "NP-SVM": _without_net(NonparallelSVMClassifier, _penalty("C_own", 0.25, 1.0, 4.0)),
    "Inverse calibration": _without_net(
        InverseCalibrationClassifier, _penalty("C", 4.0, 10.0, 40.0)
    ),
    "Robust": _without_net(
        RobustProportionClassifier, _each("doubt", 0.3, 0.4, 0.6), uses_slides=True
    ),
    "Supervised, discriminant": _solved(DiscriminantClassifier, **NO_LABELS),
    "Ceiling": _npl(uses_labels_of_bags=True, **NO_LABELS),
}

#: Whose authors' settings differ from those shipped, and the class that states them.
STATED = {
    "ICT": ICTClassifier,
    "Mean teacher": MeanTeacherClassifier,
    "MixBag": MixBag,
    "MixMatch": MixMatchClassifier,
    "LLP-GAN": LLPGANClassifier,
    "FixMatch": FixMatchClassifier,
    "SoftMatch": SoftMatchClassifier,
    "Proportion-SVM": ProportionSVMClassifier,
}


#: Epochs for equal numbers of steps, where the source has other numbers of bags per step.
EPOCHS = {"MixBag": 1600, "LLP-GAN": 50, "FixMatch": 350, "SoftMatch": 350}


def source_name(name: str) -> str:
    """How a system in its source's settings is called."""
    return f"{name}, as in the source"


def source_settings(name: str) -> dict:
    """The settings of a system in its authors' code."""
    return STATED[name].SOURCE_SETTINGS


def _as_in_source(name: str) -> System:
    """In the settings of its authors' code, of which only the first grid, the decay, is chosen."""
    shipped = SYSTEMS[name]

    def make(training):
        share = training.get("max_epochs", 100) / 100
        steps = {**training, "max_epochs": max(1, round(share * EPOCHS.get(name, 100)))}
        return shipped.make(steps).set_params(**source_settings(name))

    return replace(shipped, make=make, grids=shipped.grids[:1])


SOURCES = {name: _as_in_source(name) for name in STATED}
#: By the name that tasks bear.
EVERY = SYSTEMS | {source_name(name): system for name, system in SOURCES.items()}
