"""Whether a column of features means the same in labeled patches and in bags."""

import numpy as np
from scipy.stats import rankdata

#: Fewest features that are compared: of few, means can be alike by chance.
FEWEST_FEATURES = 64

#: Rank correlation over the features that the means of 90% of the pairs of classes, and of bags, exceed where
#: some features are large in all tissue.
COMMON, QUANTILE = 0.4, 0.1

#: Rank correlation, without its sign, below which the means of labeled patches and bags are different. If
#: their columns are the same it is .85 or more, otherwise at most .09 (LC25000 and Chula, 10 to 200 labeled
#: patches). Glass and tissue have .2 to .5 (MobileNetV2). It is negative if both are centered at their common
#: mean.
DIFFERENT = 0.2


def have_other_columns(
    labeled: np.ndarray, y: np.ndarray, of_bags: np.ndarray, bags: np.ndarray
) -> bool:
    """Whether columns of the bags seem to be in another order, or to come from another network.

    Networks have features that are large, and others that are small, in all tissue. Such a profile of means
    is compared where all classes and bags share it. Where they do not, as after standardization, columns
    have nothing that could be recognized, and the answer is no. (Profiles of standard deviations and
    correlations between features also depend on slides and classes, which the parts need not share.)

    Parameters
    ----------
    labeled : ndarray of shape (n_labeled, n_features)
    y : ndarray of shape (n_labeled,)
        Their classes.
    of_bags : ndarray of shape (n_instances, n_features)
    bags : ndarray of shape (n_instances,)
        Their bags.

    Returns
    -------
    differ : bool
    """
    varies = (np.ptp(labeled, axis=0) > 0) & (np.ptp(of_bags, axis=0) > 0)
    if varies.sum() < FEWEST_FEATURES:
        return False
    means = _means(labeled[:, varies], y), _means(of_bags[:, varies], bags)
    if min(map(_in_common, means)) < COMMON:
        return False
    between = _correlations([of_part.mean(axis=0) for of_part in means])
    return abs(float(between[0, 1])) < DIFFERENT


def _means(X, groups):
    return np.array([X[groups == group].mean(axis=0) for group in np.unique(groups)])


def _in_common(means):
    """Correlation over the features that most pairs of groups exceed; 0 for a single group."""
    pairs = np.triu_indices(len(means), k=1)
    return float(np.quantile(_correlations(means)[pairs], QUANTILE)) if len(means) > 1 else 0.0


def _correlations(profiles):
    """Between all pairs of profiles, of ranks: some networks have a few features that are huge."""
    return np.corrcoef(rankdata(profiles, axis=1))
