"""Random filters at several scales: texture features without pretrained weights."""

import torch
from torch import nn
from torch.nn import functional


class RandomFilterFeatures(nn.Module):
    """Mean and standard deviation of random filter responses at several scales.

    At each scale the image is filtered by random zero-mean 5 x 5 filters, rectified, halved, filtered by
    random zero-mean 3 x 3 filters and rectified again; the features are the mean and standard deviation over
    all positions of both responses, and of the image colors. Nothing is learned. Random shallow filters
    preserve more texture than the 52 random layers of an untrained MobileNetV2, but far less than pretrained
    layers.

    Parameters
    ----------
    n_scales : int, default=3
        Number of scales. The first uses the image at half its size, each further scale halves it again. Sides
        of images must be at least ``12 * 2**n_scales`` pixels, so that the last responses have more than one
        position.
    n_filters : (int, int), default=(32, 64)
        Number of filters of the first and of the second layer.
    seed : int, default=0
        Seed of the filters; torch's global generator is not changed.

    Attributes
    ----------
    first, second : torch.Tensor
        Buffers; the filters, each of norm 1.

    Notes
    -----
    After Jarrett, Kavukcuoglu, Ranzato, LeCun, "What is the best multi-stage architecture for object
    recognition?", ICCV 2009, who found that random filters with rectification and pooling perform well.

    Examples
    --------
    >>> network = RandomFilterFeatures()
    >>> network(torch.zeros(2, 3, 224, 224)).shape
    torch.Size([2, 588])
    """

    first: torch.Tensor
    second: torch.Tensor

    def __init__(self, n_scales: int = 3, n_filters: tuple[int, int] = (32, 64), seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.n_scales = n_scales
        self.register_buffer("first", _random_filters(n_filters[0], 3, 5, generator))
        self.register_buffer("second", _random_filters(n_filters[1], n_filters[0], 3, generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized float images (n, 3, height, width) to features (n, n_features)."""
        least = 12 * 2**self.n_scales
        if min(images.shape[2:]) < least:
            raise ValueError(
                f"Images of {images.shape[2]} x {images.shape[3]} pixels are too small for "
                f"{self.n_scales} scales, which need at least {least}; lower n_scales."
            )
        features = [images.mean(dim=(2, 3))]
        for _ in range(self.n_scales):
            images = functional.avg_pool2d(images, 2)
            textures = functional.conv2d(images, self.first).relu()
            patterns = functional.conv2d(functional.avg_pool2d(textures, 2), self.second).relu()
            features += [images.std(dim=(2, 3)), *_moments(textures), *_moments(patterns)]
        return torch.cat(features, dim=1)


def _random_filters(n_filters, n_channels, size, generator):
    filters = torch.randn(n_filters, n_channels, size, size, generator=generator)
    filters -= filters.mean(dim=(1, 2, 3), keepdim=True)
    return filters / filters.flatten(1).norm(dim=1)[:, None, None, None]


def _moments(answers):
    return answers.mean(dim=(2, 3)), answers.std(dim=(2, 3))
