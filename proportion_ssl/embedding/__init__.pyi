from ._compile import compile_features
from ._openvino import NotInstalledError
from .exported_embedder import ExportedEmbedder, ExportedFileError
from .mobilenet import (
    MobileNetV2Features,
    PixelNormalization,
    WeightsNotAvailableError,
    load_mobilenet_v2,
)
from .patch_embedder import PatchEmbedder
from .pretrained import Pretrained, pretrained_embedder
from .random_filters import RandomFilterFeatures

__all__ = [
    "ExportedEmbedder",
    "ExportedFileError",
    "MobileNetV2Features",
    "NotInstalledError",
    "PatchEmbedder",
    "PixelNormalization",
    "Pretrained",
    "RandomFilterFeatures",
    "WeightsNotAvailableError",
    "compile_features",
    "load_mobilenet_v2",
    "pretrained_embedder",
]
