"""Linear discriminant analysis as a head: solved for, from labels or from soft labels."""

from numbers import Real
from typing import Any

import numpy as np

from proportion_ssl._sklearn import Interval
from proportion_ssl.heads._base import SoftLabelHead
from proportion_ssl.heads._discriminant import linear_discriminant


class DiscriminantClassifier(SoftLabelHead):
    """Linear discriminant analysis of many correlated features, few labels and few slides.

    A classifier of features by itself, and a head of
    :class:`~proportion_ssl.NegativePseudoLabelClassifier` in place of a net: solved for instead of trained.

    Parameters
    ----------
    n_components : int, default=None
        Principal components of the standardized features that the discriminant functions are made of; at most
        the number of features. Default: 800, down to 200 where there are many instances.
    shrinkage : float in (0, 1], default=None
        How far the covariance within classes is moved towards a multiple of the identity matrix. Default: the
        analytic optimum for slides as the units that were sampled (see Notes), renewed with the labels.
    temperature : float, default=None
        Logits are divided by it, since normal distributions of many features are far too sure. Default: the
        most probable one on labeled instances that are left out in turn, by slide where ``groups`` are given.
    random_state : int, RandomState instance or None, default=None
        Chooses the instances that scale and principal components are taken from where there are more than
        20,000, or 30 million values; with more than 1536 features the components are found by a randomized
        method.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of float64, shape (n_classes, n_features)
    intercept_ : ndarray of float64, shape (n_classes,)
    temperature_ : float
        What the logits were divided by; ``coef_`` and ``intercept_`` contain it.
    n_features_in_ : int

    Notes
    -----
    Classes count as equally frequent. The covariance within classes holds what differs from slide to slide,
    above all the stain, and the discriminant functions do not look there.

    The default shrinkage is that of Ledoit and Wolf [1]_ with one change: how much the covariance would vary
    in another sample is estimated from what each slide adds to it, not each patch, since patches of a slide
    are alike.

    References
    ----------
    .. [1] Ledoit, Wolf. "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices". Journal of
       Multivariate Analysis 88, 2004.

    Examples
    --------
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = DiscriminantClassifier().fit(data.X_labeled, data.y, groups=data.groups)
    >>> bool(clf.score(data.X_test, data.y_test) > 0.7)
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **SoftLabelHead._parameter_constraints,
        "shrinkage": [Interval(Real, 0, 1, closed="right"), None],
    }

    #: Discriminant functions of many features are too sure.
    usual_temperature = 5.0

    def __init__(
        self,
        n_components: int | None = None,
        *,
        shrinkage: float | None = None,
        temperature: float | None = None,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.temperature = temperature
        self.random_state = random_state

    def solve(
        self, X: np.ndarray, labels: np.ndarray, groups: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return linear_discriminant(X, labels, shrinkage=self.shrinkage, groups=groups)
