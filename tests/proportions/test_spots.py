"""Bags from AnnData, with a stand-in for its object."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from proportion_ssl.proportions import bags_from_anndata


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"region": pd.Categorical(["b", "a", None, "b", "a"])})
    X = rng.normal(size=(5, 3)).astype(np.float32)
    return SimpleNamespace(obsm={"uni": X}, obs=obs, X=scipy.sparse.csr_matrix(X))


@pytest.mark.parametrize("key", ["uni", "X"])
def test_spots_are_instances(adata, key):
    shares = pd.DataFrame({"solid": [0.25, 1.0], "acinar": [0.75, 0.0]}, index=["b", "a"])
    bags = bags_from_anndata(adata, key, "region", shares, rounding_step=0.1)
    assert bags.names.tolist() == ["a", "b"] and bags.index.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(bags.X, adata.obsm["uni"][[0, 1, 3, 4]])
    np.testing.assert_allclose(bags.proportions, [[1.0, 0.0], [0.25, 0.75]])


def test_what_is_missing_is_named(adata):
    with pytest.raises(ValueError, match=r"adata\.obsm has no 'conch'; it has \['uni'\]"):
        bags_from_anndata(adata, "conch", "region")
    with pytest.raises(ValueError, match=r"adata\.obs has no column 'slide'"):
        bags_from_anndata(adata, "uni", "slide")
    adata.obsm["uni"][3, 0] = np.inf
    with pytest.raises(ValueError, match="observation 3 is not finite"):
        bags_from_anndata(adata, "uni", "region")
