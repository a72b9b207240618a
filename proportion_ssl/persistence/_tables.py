"""What a file may name, and what it may set. To make a classifier savable, give it a row in ``ROWS``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import NoneType

import numpy as np
import pandas as pd
import torch
from sklearn.utils._param_validation import HasMethods, Interval, Options

from proportion_ssl.base import BagClassifier
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
from proportion_ssl.classifier import NegativePseudoLabelClassifier
from proportion_ssl.losses import MultiNegativeLoss, NegativeLoss, PositiveLoss
from proportion_ssl.nets.net import HeadClassifier, MobileNetV2Classifier
from proportion_ssl.robust import RobustProportionClassifier
from proportion_ssl.selection import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    ThresholdSelector,
)

Kinds = Mapping[str, tuple[type, ...]]


@dataclass(frozen=True)
class Row:
    """Fitted attributes of a classifier, each with the types that its value may have.

    Not named need be ``classes_``, ``n_features_in_``, ``is_images_`` and ``feature_names_in_``, the net of a
    :class:`~proportion_ssl.base.NetBagClassifier`, and pseudo labels under the names that
    :class:`~proportion_ssl.NegativePseudoLabelClassifier` gives them. Types: bool, int, float,
    str, NoneType, and lists and dicts of these; DataFrame of booleans, numbers or strings; BagClassifier:
    a fitted classifier that has a row itself.
    """

    always: Kinds = field(default_factory=dict)  # a file without one of these is refused
    sometimes: Kinds = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # not saved, such as training data


#: Classifiers that can be saved.
ROWS: dict[type[BagClassifier], Row] = {
    NegativePseudoLabelClassifier: Row(
        always={
            "history_": (list,),
            "n_iter_": (int,),
            "refit_history_": (dict, NoneType),
            "termination_condition_": (str,),
        }
    ),
    RobustProportionClassifier: Row(
        always={"classifier_": (BagClassifier,)},
        sometimes={
            "scout_": (BagClassifier,),
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
}

NETS = (HeadClassifier, MobileNetV2Classifier)
#: What a parameter may be an instance of, beside nets, classifiers and plain values.
PARTS = (
    *(AdaptiveSelector, AssignmentSelector, NegativeSelector, ThresholdSelector),
    *(MultiNegativeLoss, NegativeLoss, PositiveLoss),
    MixBag,
)
OPTIMIZERS = (torch.optim.RAdam, torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)

OF_ALL: Kinds = {"is_images_": (bool,), "n_features_in_": (int,)}
NAMES = ("bag_names_", "classes_", "feature_names_in_")
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
