"""mixup of the labeled patches."""

from numbers import Real
from typing import Any

import numpy as np

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.nets.signed_dataset import SignedDataset


class MixedDataset(SignedDataset):
    """Instances and labels of a batch, mixed with those of the same batch in another order.

    Parameters
    ----------
    X, signed, rows
        As in :class:`~proportion_ssl.nets.signed_dataset.SignedDataset`.
    alpha : float
        The share of the mix is drawn from Beta(alpha, alpha), once per batch.
    random_state : numpy.random.RandomState
    """

    def __init__(self, X: Any, signed: Any, rows: Any, alpha: float, random_state: Any):
        super().__init__(X, signed, rows)
        self.alpha, self.random_state = alpha, random_state

    def gather(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mixed instances (n, ...) and signed labels (n, n_classes), both real numbers."""
        X, signed = super().gather(positions)
        rest = X.dtype.type(1 - self.random_state.beta(self.alpha, self.alpha))
        other = self.random_state.permutation(len(X))
        signed = signed.astype(X.dtype)
        return X - rest * (X - X[other]), signed - rest * (signed - signed[other])


class MixupClassifier(TwoStreamClassifier):
    """mixup: trains on mixes of two labeled patches, labeled as both in the same shares.

    Bags are checked, but not used: mixup is a way of supervised training. Ends as the supervised
    fit does, by the loss of the validation patches.

    Parameters
    ----------
    alpha : float, default=0.2
        Shares are drawn from Beta(alpha, alpha); towards 0 nothing is mixed.
    **kwargs
        As in :class:`~proportion_ssl.baselines.TwoStreamClassifier`; what concerns bags has no effect.

    References
    ----------
    .. [1] Zhang, Cisse, Dauphin, Lopez-Paz. "mixup: Beyond Empirical Risk Minimization". ICLR 2018.
    """

    _needs_real_numbers = True

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, estimator: Any = None, *, alpha: float = 0.2, **kwargs: Any):
        super().__init__(estimator, **kwargs)
        self.alpha = alpha

    def _labeled_data(
        self, X: Any, signed: np.ndarray, rows: np.ndarray, random_state: np.random.RandomState
    ) -> SignedDataset:
        return MixedDataset(X, signed, rows, self.alpha, random_state)

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        super()._fit_net(net, X, codes, None, groups, random_state)
