"""Class means that labels and records of bags tell, and what the records are worth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl.estimators._class_means import class_means


def draw(rng, *, n_labeled, shares, size=20, between=0.0):
    """Labeled instances and bags of three classes in two dimensions, with a shift of each bag."""
    centers = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    codes = np.repeat(np.arange(3), n_labeled)
    X = centers[codes] + rng.normal(size=(len(codes), 2))
    of_bags = np.concatenate(
        [np.repeat(np.arange(3), np.round(size * p).astype(int)) for p in shares]
    )
    index = np.repeat(np.arange(len(shares)), size)
    shift = between * rng.normal(size=(len(shares), 2))
    bag_X = centers[of_bags] + rng.normal(size=(len(index), 2)) + shift[index]
    return X, codes, bag_X, index, shares, np.ones(len(shares))


SHARES = np.random.default_rng(0).multinomial(20, [0.5, 0.3, 0.2], size=25) / 20


@pytest.mark.parametrize(("between", "most"), [(0.0, 1.1), (0.5, 1.4)])
def test_the_worth_is_the_number_of_labels_with_the_variance_of_the_means(between, most):
    """Without a shift of the bags; with one, which these labels do not have, the worth is underestimated."""
    rng = np.random.default_rng(1)
    given = {"n_labeled": [30, 30, 0], "shares": SHARES, "between": between}
    means, variances = [], []
    for _ in range(600):
        found = class_means(*draw(rng, **given))
        means.append(found.means[2])
        variances.append(2 / found.worth[2])  # the variance within classes is 1 in each dimension
    assert 0.9 < np.mean(variances) / np.var(means, axis=0).sum() < most


def test_more_bags_are_worth_more_and_shifts_less():
    rng = np.random.default_rng(2)
    worth = {
        (n, between): np.mean(
            [
                class_means(
                    *draw(rng, n_labeled=[30] * 3, shares=SHARES[:n], between=between)
                ).worth
                for _ in range(20)
            ],
            axis=0,
        )
        for n in (12, 25)
        for between in (0.0, 1.0)
    }
    assert (worth[25, 0.0] > worth[12, 0.0]).all()
    assert (worth[25, 0.0] > 2 * worth[25, 1.0]).all()


def test_neither_unit_nor_origin_of_the_features_matters():
    X, codes, bag_X, *bags = draw(np.random.default_rng(3), n_labeled=[5, 1, 2], shares=SHARES)
    found = class_means(X, codes, bag_X, *bags)
    other = class_means(8 * X - 3, codes, 8 * bag_X - 3, *bags)
    assert_allclose(other.means, 8 * found.means - 3)
    assert_allclose(other.worth, found.worth)


def test_without_spare_bags_nothing_is_known_of_the_worth():
    given = draw(np.random.default_rng(4), n_labeled=[3, 3, 0], shares=SHARES[:1])
    assert_array_equal(class_means(*given).worth, 0)
