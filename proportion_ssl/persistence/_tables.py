"""Allowed names in a file: classes, functions, parameters of nets. Add new classifiers to ``MODELS``."""

from numbers import Integral, Real

import torch

from proportion_ssl._sklearn import HasMethods, Interval, Options
from proportion_ssl.baselines import (
    AssignmentClassifier,
    ContextClassifier,
    CountLikelihoodClassifier,
    FixMatchClassifier,
    FixMatchProportionClassifier,
    HypergeometricTargets,
    ICTClassifier,
    InverseCalibrationClassifier,
    L2PAHILClassifier,
    LLPGANClassifier,
    LLPVATClassifier,
    LPLPClassifier,
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
from proportion_ssl.estimators.negative_pseudo_label import NegativePseudoLabelClassifier
from proportion_ssl.estimators.robust_proportion import RobustProportionClassifier
from proportion_ssl.estimators.tumor_proposer import TumorProposer
from proportion_ssl.heads import DiscriminantClassifier, SoftLogisticRegression
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

#: Models other than nets that can be saved; each lists in ``_kept`` what is saved.
MODELS: tuple[type, ...] = (
    *(NegativePseudoLabelClassifier, RobustProportionClassifier),
    *(AssignmentClassifier, FixMatchClassifier, ICTClassifier, LLPVATClassifier),
    *(MeanMapClassifier, MeanTeacherClassifier, MixupClassifier, ProportionLossClassifier),
    *(ProportionSVMClassifier, SoftMatchClassifier, VATClassifier),
    *(InverseCalibrationClassifier, NonparallelSVMClassifier),
    *(LLPGANClassifier, MixMatchClassifier, NLNLClassifier, NoisyStudentClassifier),
    *(CountLikelihoodClassifier, L2PAHILClassifier, FixMatchProportionClassifier),
    *(LPLPClassifier, ContextClassifier),
    *(MultiFieldOfViewNet, TumorProposer),
    *(DiscriminantClassifier, SoftLogisticRegression),
)

NETS = (HeadClassifier, MobileNetV2Classifier)
#: Classes of parameters, besides nets and plain values.
PARTS = (
    *(AdaptiveSelector, AssignmentSelector, NegativeSelector),
    *(SoftAssignmentSelector, ThresholdSelector),
    *(NegativeLoss, PositiveLoss),
    *(HypergeometricTargets, MixBag, FixedFusion, MultiFieldOfViewNet),
    *(DiscriminantClassifier, SoftLogisticRegression),
)
#: Functions that a part may hold.
FUNCTIONS = (
    *(negative_loss, multi_negative_loss, multi_complementary_loss),
    *(unbiased_complementary_loss, non_negative_complementary_loss),
    *(gradient_ascent_complementary_loss, pairwise_comparison_loss, one_versus_all_loss),
)
OPTIMIZERS = (torch.optim.RAdam, torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)

NAMES = ("classes_", "feature_names_in_")  # arrays of names, written as JSON
LOG = {
    "bag_index": torch.int64,
    "cells": torch.int64,
    "rules": torch.int8,
    "lengths": torch.int64,
}

MAX_INT = 2**63 - 1
#: Parameters of a net that are saved; all others must have their default.
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
