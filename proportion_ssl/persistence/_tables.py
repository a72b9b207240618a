"""What a file may name, and what it may set. To make a classifier savable, give it a row in ``ROWS``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import NoneType

import numpy as np
import pandas as pd
import torch

from proportion_ssl._sklearn import HasMethods, Interval, Options
from proportion_ssl.baselines import (
    AssignmentClassifier,
    FixMatchClassifier,
    ICTClassifier,
    LLPVATClassifier,
    MeanTeacherClassifier,
    MixBag,
    MixupClassifier,
    ProportionLossClassifier,
    SoftMatchClassifier,
    VATClassifier,
)
from proportion_ssl.estimators._base import BagClassifier
from proportion_ssl.estimators.negative_pseudo_label import NegativePseudoLabelClassifier
from proportion_ssl.estimators.robust_proportion import RobustProportionClassifier
from proportion_ssl.estimators.tumor_proposer import TumorProposer
from proportion_ssl.losses.complementary import (
    gradient_ascent_complementary_loss,
    multi_complementary_loss,
    non_negative_complementary_loss,
    one_versus_all_loss,
    pairwise_comparison_loss,
    unbiased_complementary_loss,
)
from proportion_ssl.losses.signed_labels import (
    NegativeLoss,
    PositiveLoss,
    multi_negative_loss,
    negative_loss,
)
from proportion_ssl.nets.classifiers import HeadClassifier, MobileNetV2Classifier
from proportion_ssl.nets.field_of_view import FixedFusion, MultiFieldOfViewNet
from proportion_ssl.pseudo_labels.selectors import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    SoftAssignmentSelector,
    ThresholdSelector,
)

Kinds = Mapping[str, tuple[type, ...]]


@dataclass(frozen=True)
class Row:
    """Fitted attributes of a model, each with the types that its value may have.

    Not named need be, of a :class:`~proportion_ssl.estimators._base.BagClassifier`, ``classes_``,
    ``n_features_in_`` and ``is_images_``, its net, and pseudo labels under the names that
    :class:`~proportion_ssl.NegativePseudoLabelClassifier` gives them; of no model ``feature_names_in_``.
    Types: bool, int, float, str, NoneType, and lists and dicts of these; DataFrame of booleans, numbers or
    strings. Fitted models within the model have fields of their own; their types have a row, or are nets.
    """

    always: Kinds = field(default_factory=dict)  # a file without one of these is refused
    sometimes: Kinds = field(default_factory=dict)
    within: Kinds = field(default_factory=dict)  # one fitted model; never left away
    several: Kinds = field(default_factory=dict)  # a list of fitted models; never left away
    left_out: tuple[str, ...] = ()  # not saved, such as training data


#: Models that can be saved, beside nets.
ROWS: dict[type, Row] = {
    NegativePseudoLabelClassifier: Row(
        always={
            "history_": (list,),
            "n_iter_": (int,),
            "refit_history_": (dict, NoneType),
            "termination_condition_": (str,),
        }
    ),
    RobustProportionClassifier: Row(
        sometimes={
            "history_": (list,),
            "bag_reliability_": (pd.DataFrame,),
            "trust_": (float,),
        },
        left_out=("bags_",),
    ),
    AssignmentClassifier: Row(),
    FixMatchClassifier: Row(),
    ICTClassifier: Row(),
    LLPVATClassifier: Row(),
    MeanTeacherClassifier: Row(),
    MixupClassifier: Row(),
    ProportionLossClassifier: Row(),
    SoftMatchClassifier: Row(),
    VATClassifier: Row(),
    MultiFieldOfViewNet: Row(
        always={"classes_": (np.ndarray,), "n_features_in_": (int,)},
        several={"experts_": (HeadClassifier,)},
        left_out=("fusion_",),  # follows from the parameters
    ),
    TumorProposer: Row(
        always={
            "n_features_in_": (int,),
            "threshold_": (float,),
            "recall_": (float,),
            "precision_": (float,),
        },
        within={"net_": (MultiFieldOfViewNet, HeadClassifier)},
    ),
}

NETS = (HeadClassifier, MobileNetV2Classifier)
#: What a parameter may be an instance of, beside nets and plain values.
PARTS = (
    *(AdaptiveSelector, AssignmentSelector, NegativeSelector),
    *(SoftAssignmentSelector, ThresholdSelector),
    *(NegativeLoss, PositiveLoss),
    *(MixBag, FixedFusion, MultiFieldOfViewNet),
)
#: Functions that a part may hold.
FUNCTIONS = (
    *(negative_loss, multi_negative_loss, multi_complementary_loss),
    *(unbiased_complementary_loss, non_negative_complementary_loss),
    *(gradient_ascent_complementary_loss, pairwise_comparison_loss, one_versus_all_loss),
)
OPTIMIZERS = (torch.optim.RAdam, torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)

OF_CLASSIFIERS: Kinds = {
    "classes_": (np.ndarray,),
    "is_images_": (bool,),
    "n_features_in_": (int,),
}
NAMES = ("bag_names_", "classes_", "feature_names_in_")  # arrays of names, written as JSON
LABELS: dict[str, np.dtype] = {
    "bag_index_": np.dtype(np.int64),
    "label_rounds_": np.dtype(np.int32),
    "signed_labels_": np.dtype(np.int8),
}
LOG = {"cells": torch.int64, "rules": torch.int8, "lengths": torch.int64}

MAX_INT = 2**63 - 1
#: Parameters of a net that are kept; any other must have its default.
NET_CONSTRAINTS = {
    "lr": [Interval(Real, 0, None, closed="left"), None],
    "weight_decay": [Interval(Real, 0, None, closed="left"), None],
    "batch_size": [Interval(Integral, 1, MAX_INT, closed="both"), Options(Integral, {-1})],
    "max_epochs": [Interval(Integral, 0, None, closed="left")],
    "patience": [Interval(Integral, 0, None, closed="left")],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "dropout": [Interval(Real, 0, 1, closed="both")],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "weights": [str, None],
    "freeze": ["boolean"],
    "optimizer": [Options(type, set(OPTIMIZERS))],
    "criterion__positive": [HasMethods("instance_losses")],
    "criterion__negative": [HasMethods("instance_losses")],
}
NET_IGNORED = ("device", "callbacks__valid_acc")


def always_kept(cls: type) -> Kinds:
    """Attributes without which a file is refused."""
    return {**(OF_CLASSIFIERS if issubclass(cls, BagClassifier) else {}), **ROWS[cls].always}


def kept(cls: type) -> Kinds:
    """Attributes that are kept, apart from pseudo labels and models."""
    names: Kinds = {"feature_names_in_": (np.ndarray,)}
    if issubclass(cls, BagClassifier):
        names = {**names, "bag_names_": (np.ndarray,)}
    return {**names, **always_kept(cls), **ROWS[cls].sometimes}
