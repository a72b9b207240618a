"""The trainable head that sits on frozen features: standardize, dropout, linear."""

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from proportion_ssl.nets.random_numbers import generator

#: Mean and standard deviation of a feature, above which float32 overflows on the way to the logits.
LARGEST = 1e30

#: Features that are standardized at once, so that their float64 copies stay small.
COLUMNS_AT_ONCE = 256


class FastDropout(nn.Dropout):
    """Dropout whose mask on a CPU costs a third of torch's: four coin flips from one random number.

    The probability is a multiple of 1/65536 there, and the numbers come from
    :func:`~proportion_ssl.nets.random_numbers.generator`. Without the weights of a large layer to multiply,
    drawing the mask is what a step of a linear head spends most of its time on.

    Examples
    --------
    >>> import torch
    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> dropped = FastDropout(0.25)(torch.ones(100, 100))
    >>> sorted(set(dropped.flatten().tolist())), abs(float((dropped == 0).float().mean()) - 0.25) < 0.02
    ([0.0, 1.3333333730697632], True)
    """

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Values of the same shape; in training some are 0 and the others larger by as much."""
        if not self.training or X.device.type != "cpu":
            return super().forward(X)
        levels = round(self.p * 65536)
        if levels in (0, 65536):
            return nn.functional.dropout(X, levels / 65536, inplace=self.inplace)
        numbers = torch.empty(-(-X.numel() // 4), dtype=torch.int64)
        numbers.random_(-(2**63), None, generator=generator())
        coins = numbers.view(torch.int16)[: X.numel()].view(X.shape)
        kept = torch.ge(coins, levels - 32768, out=torch.empty(X.shape))  # as numbers: bool is slow
        kept.mul_(65536 / (65536 - levels))
        return X.mul_(kept) if self.inplace else X * kept


class LinearHead(nn.Module):
    """Dropout and one linear layer on features that are standardized first.

    This is MobileNetV2's own classification head (dropout 0.2, linear 1280 -> C)
    with a fixed affine map in front. The map changes no function that the head can
    represent, only its conditioning: one learning rate then suits features of any
    scale.

    Parameters
    ----------
    n_features : int
        Width of a feature vector.
    n_classes : int
        Number of logits.
    dropout : float, default=0.2
        Probability of setting a standardized feature to 0 in training, in [0, 1).

    Attributes
    ----------
    mean, scale : torch.Tensor of shape (n_features,)
        Buffers, 0 and 1 until :meth:`standardize` sets them. They receive no gradient.

    Examples
    --------
    >>> import torch
    >>> LinearHead(4, 3)(torch.zeros(2, 4)).shape
    torch.Size([2, 3])
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_features: int, n_classes: int, dropout: float = 0.2):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.dropout = FastDropout(dropout, inplace=True)
        self.linear = nn.Linear(n_features, n_classes)

    def standardize(self, features: np.ndarray) -> "LinearHead":
        """Set ``mean`` and ``scale`` from features; constant features keep scale 1.

        Parameters
        ----------
        features : ndarray of shape (n_instances, n_features)

        Returns
        -------
        self : LinearHead

        Raises
        ------
        ValueError
            When the mean or standard deviation of a feature is above 1e30: float32 would overflow.
        """
        for start in range(0, features.shape[1], COLUMNS_AT_ONCE):
            columns = slice(start, start + COLUMNS_AT_ONCE)
            scaler = StandardScaler().fit(np.asarray(features[:, columns], dtype=np.float64))
            mean, scale = scaler.mean_, scaler.scale_
            wrong = np.flatnonzero(~((np.abs(mean) <= LARGEST) & (scale <= LARGEST)))
            if len(wrong):
                raise ValueError(
                    f"Feature {start + wrong[0]} has mean {mean[wrong[0]]:.3g} and standard deviation "
                    f"{scale[wrong[0]]:.3g}; above {LARGEST:.0e} float32 overflows. Look for wrong values, "
                    "or rescale the feature."
                )
            scale = np.where(scale < 1 / LARGEST, 1.0, scale)
            self.mean[columns] = torch.as_tensor(mean, dtype=self.mean.dtype)
            self.scale[columns] = torch.as_tensor(scale, dtype=self.scale.dtype)
        return self

    def set_linear(self, weight: np.ndarray, bias: np.ndarray) -> "LinearHead":
        """Set the linear layer instead of training it.

        Parameters
        ----------
        weight : ndarray of shape (n_classes, n_features)
            Weights of the standardized features.
        bias : ndarray of shape (n_classes,)

        Returns
        -------
        self : LinearHead
        """
        with torch.no_grad():
            self.linear.weight.copy_(torch.as_tensor(weight))
            self.linear.bias.copy_(torch.as_tensor(bias))
        return self

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """The map from features to logits as one matrix.

        Returns
        -------
        coef : ndarray of float64, shape (n_classes, n_features)
        intercept : ndarray of float64, shape (n_classes,)
        """
        parts = (self.linear.weight, self.linear.bias, self.mean, self.scale)
        weight, bias, mean, scale = (part.detach().cpu().double().numpy() for part in parts)
        return weight / scale, bias - (weight / scale) @ mean

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n_instances, n_classes) for features (n_instances, n_features)."""
        # dividing the weights by the scale, not the features, spares a pass over these
        weight = self.linear.weight / self.scale
        if not self.training:  # nor is the mean taken from them where nothing is dropped
            return nn.functional.linear(X, weight, self.linear.bias - weight @ self.mean)
        return nn.functional.linear(self.dropout(X - self.mean), weight, self.linear.bias)
