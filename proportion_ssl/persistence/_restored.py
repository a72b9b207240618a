"""A MobileNetV2 restored from a file."""

from typing import Any

from proportion_ssl.embedding._images import check_images
from proportion_ssl.embedding.patch_embedder import PatchEmbedder
from proportion_ssl.nets.classifiers import MobileNetV2Classifier, SignedLabelNet
from proportion_ssl.nets.signed_dataset import SignedDataset


class RestoredMobileNetV2(MobileNetV2Classifier):
    """A MobileNetV2 whose frozen layers come from the model file."""

    def embed(self, X: Any) -> Any:
        if not self.freeze or not self.initialized_:
            return super().embed(X)
        if isinstance(X, SignedDataset) or len(X.shape) == 2:
            return X
        check_images(X)
        return PatchEmbedder(module=self.module_.backbone).transform(X)

    def fit(self, X: Any, y: Any, groups: Any = None, **fit_params: Any) -> SignedLabelNet:
        """Fit again, starting from ``weights``."""
        return super().fit(super().embed(X), y, groups, **fit_params)


def class_of(thing: Any) -> type:
    """Class under which a net or part is saved."""
    return MobileNetV2Classifier if type(thing) is RestoredMobileNetV2 else type(thing)
