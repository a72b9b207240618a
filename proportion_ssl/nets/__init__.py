"""Networks: MobileNetV2, the linear head, random filters, and fast inference of frozen networks."""

from proportion_ssl.nets.head import LinearHead
from proportion_ssl.nets.inference import compile_features
from proportion_ssl.nets.mobilenet import (
    MobileNetV2Features,
    MobileNetV2Module,
    PixelNormalization,
    WeightsNotAvailableError,
    load_mobilenet_v2,
)
from proportion_ssl.nets.random_filters import RandomFilterFeatures
from proportion_ssl.nets.streams import BagBatch, BagLoss, BagStream, TwoStreamLoss, ramp

__all__ = [
    "BagBatch",
    "BagLoss",
    "BagStream",
    "LinearHead",
    "MobileNetV2Features",
    "MobileNetV2Module",
    "PixelNormalization",
    "RandomFilterFeatures",
    "TwoStreamLoss",
    "WeightsNotAvailableError",
    "compile_features",
    "load_mobilenet_v2",
    "ramp",
]
