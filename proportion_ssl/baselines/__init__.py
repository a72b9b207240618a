"""Comparison methods of the paper and more recent ones, one file per method.

All have ``fit(X_labeled, y, X_bags=None, bag_proportions=None, *, groups=None)``. A method that trains a net
on labeled batches and batches of bags defines only a loss on bags
(:class:`proportion_ssl.baselines.BagLoss`); the training loop is shared.
"""

from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss, BagStream, TwoStreamLoss, ramp
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines.assignment_classifier import AssignmentClassifier
from proportion_ssl.baselines.context import ContextClassifier
from proportion_ssl.baselines.count_likelihood import CountLikelihoodClassifier
from proportion_ssl.baselines.fixmatch import FixMatchClassifier
from proportion_ssl.baselines.fixmatch_proportion import FixMatchProportionClassifier
from proportion_ssl.baselines.hypergeometric import HypergeometricTargets
from proportion_ssl.baselines.ict import ICTClassifier
from proportion_ssl.baselines.inverse_calibration import InverseCalibrationClassifier
from proportion_ssl.baselines.l2p_ahil import L2PAHILClassifier
from proportion_ssl.baselines.llp_gan import LLPGANClassifier
from proportion_ssl.baselines.llp_vat import LLPVATClassifier
from proportion_ssl.baselines.lplp import LPLPClassifier
from proportion_ssl.baselines.mean_map import MeanMapClassifier
from proportion_ssl.baselines.mean_teacher import MeanTeacherClassifier
from proportion_ssl.baselines.mixbag import MixBag
from proportion_ssl.baselines.mixmatch import MixMatchClassifier
from proportion_ssl.baselines.mixup import MixupClassifier
from proportion_ssl.baselines.nlnl import NLNLClassifier, doubtful_labels
from proportion_ssl.baselines.noisy_student import NoisyStudentClassifier
from proportion_ssl.baselines.nonparallel_svm import NonparallelSVMClassifier
from proportion_ssl.baselines.proportion_loss import ProportionLossClassifier
from proportion_ssl.baselines.proportion_svm import ProportionSVMClassifier
from proportion_ssl.baselines.softmatch import SoftMatchClassifier
from proportion_ssl.baselines.vat import VATClassifier

__all__ = [
    "AssignmentClassifier",
    "BagBatch",
    "BagLoss",
    "BagStream",
    "ContextClassifier",
    "CountLikelihoodClassifier",
    "FixMatchClassifier",
    "FixMatchProportionClassifier",
    "HypergeometricTargets",
    "ICTClassifier",
    "InverseCalibrationClassifier",
    "L2PAHILClassifier",
    "LLPGANClassifier",
    "LLPVATClassifier",
    "LPLPClassifier",
    "MeanMapClassifier",
    "MeanTeacherClassifier",
    "MixBag",
    "MixMatchClassifier",
    "MixupClassifier",
    "NLNLClassifier",
    "NoisyStudentClassifier",
    "NonparallelSVMClassifier",
    "ProportionLossClassifier",
    "ProportionSVMClassifier",
    "SoftMatchClassifier",
    "TwoStreamClassifier",
    "TwoStreamLoss",
    "VATClassifier",
    "doubtful_labels",
    "ramp",
]
