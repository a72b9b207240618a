"""Predictions for what a fit has not seen."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin

from proportion_ssl._fitting import most_folds, refuse_sparse, unseen_probabilities


class Remembers(ClassifierMixin, BaseEstimator):
    """Says of each instance whether it was in the fit: probability 1 of the first class if so."""

    def fit(self, X, y, groups=None):
        self.classes_, self.groups_ = np.unique(y), groups
        self.seen_ = set(np.ravel(X).tolist())
        return self

    def predict_proba(self, X):
        assert self.groups_ is None or len(self.groups_) == len(self.seen_)
        seen = np.array([x in self.seen_ for x in np.ravel(X).tolist()], dtype=float)
        share = (1 - seen) / (len(self.classes_) - 1)
        return np.column_stack([seen, *[share] * (len(self.classes_) - 1)])


X = np.arange(12.0).reshape(-1, 1)


@pytest.mark.parametrize("groups", [None, np.arange(12) // 3])
@pytest.mark.parametrize("fit_with_groups", [False, True])
def test_no_instance_was_in_the_fit(groups, fit_with_groups):
    y = np.arange(12) % 3
    unseen = unseen_probabilities(Remembers(), X, y, groups, fit_with_groups=fit_with_groups)
    assert_array_equal(unseen, np.tile([0.0, 0.5, 0.5], (12, 1)))


def test_a_class_that_the_other_folds_lack_has_probability_0():
    y = np.array(list("aaabbbabaccc"))  # all of "c" on the last of four slides
    unseen = unseen_probabilities(Remembers(), X, y, np.arange(12) // 3)
    assert_array_equal(unseen[9:], np.tile([0.0, 1.0, 0.0], (3, 1)))
    assert_array_equal(unseen[:9], np.tile([0.0, 0.5, 0.5], (9, 1)))


def test_nothing_is_said_where_the_other_folds_hold_one_class():
    y = np.array([0, 1, 1, *[1] * 9])
    unseen = unseen_probabilities(Remembers(), X, y, np.arange(12) // 3)
    assert np.isnan(unseen[:3]).all() and np.isfinite(unseen[3:]).all()


def test_folds_that_are_impossible():
    assert most_folds(np.array([0, 0, 1])) == 1
    assert most_folds(np.array([0, 0, 1]), ["a", "b", "b"]) == 2
    with pytest.raises(ValueError, match="at least two instances of each class"):
        unseen_probabilities(Remembers(), X[:3], np.array([0, 0, 1]))
    with pytest.raises(ValueError, match=r"at least two slides \(groups\)"):
        unseen_probabilities(Remembers(), X[:3], np.array([0, 0, 1]), ["a"] * 3)


def test_sparse_matrices_are_refused_by_name():
    refuse_sparse(X)
    with pytest.raises(
        TypeError, match=r"X_bags is a sparse matrix .* convert it with \.toarray\(\)"
    ):
        refuse_sparse(csr_array(X), "X_bags")
