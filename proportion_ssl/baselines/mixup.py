"""mixup of labeled patches."""

from numbers import Real
from typing import Any

import numpy as np

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.nets.signed_dataset import SignedDataset


class MixedDataset(SignedDataset):
    """Dataset that mixes the instances and labels of a batch with a permutation of the same batch.

    Parameters
    ----------
    X, signed, rows
        As in :class:`~proportion_ssl.nets.signed_dataset.SignedDataset`.
    alpha : float
        The mixing coefficient is drawn from Beta(alpha, alpha), once per batch.
    random_state : numpy.random.RandomState
    """

    def __init__(self, X: Any, signed: Any, rows: Any, alpha: float, random_state: Any):
        super().__init__(X, signed, rows)
        self.alpha, self.random_state = alpha, random_state

    def gather(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mixed instances (n, ...) and mixed signed labels (n, n_classes), both real-valued."""
        X, signed = super().gather(positions)
        rest = X.dtype.type(1 - self.random_state.beta(self.alpha, self.alpha))
        other = self.random_state.permutation(len(X))
        signed = signed.astype(X.dtype)
        return X - rest * (X - X[other]), signed - rest * (signed - signed[other])


class MixupClassifier(TwoStreamClassifier):
    """mixup: train on linear mixes of two labeled patches and of their labels.

    Bags are checked but not used, because mixup is a supervised method. Early stopping uses the loss of the
    validation patches, as in the supervised fit.

    Parameters
    ----------
    alpha : float, default=0.2
        Mixing coefficients are drawn from Beta(alpha, alpha); as alpha approaches 0, nothing is mixed.
    **kwargs
        As in :class:`~proportion_ssl.baselines.TwoStreamClassifier`; parameters for bags have no effect.

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
