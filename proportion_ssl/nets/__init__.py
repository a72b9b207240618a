"""Networks that learn from signed labels, in skorch's manner."""

from proportion_ssl import _moved
from proportion_ssl.nets.classifiers import HeadClassifier, MobileNetV2Classifier, SignedLabelNet
from proportion_ssl.nets.field_of_view import AdaptiveFusion, FixedFusion, MultiFieldOfViewNet
from proportion_ssl.nets.head import LinearHead
from proportion_ssl.nets.mobilenet_module import MobileNetV2Module

__all__ = [
    "AdaptiveFusion",
    "FixedFusion",
    "HeadClassifier",
    "LinearHead",
    "MobileNetV2Classifier",
    "MobileNetV2Module",
    "MultiFieldOfViewNet",
    "SignedLabelNet",
]

__getattr__ = _moved.follow(__name__, _moved.FROM_NETS)
