"""Bags from AnnData: spots are instances, samples or regions are bags."""

from __future__ import annotations

from typing import Any

import numpy as np

from proportion_ssl.proportions.bags import Bags


def bags_from_anndata(
    adata: Any,
    features: str,
    bag: str,
    proportions: Any = None,
    **settings: Any,
) -> Bags:
    """Create bags from the observations of an AnnData object, such as Visium spots.

    Parameters
    ----------
    adata : AnnData
        Only ``obsm`` (or ``X``) and ``obs`` are read; anndata is not imported.
    features : str
        Key of ``adata.obsm``: an array of shape (n_obs, n_features), or "X" for ``adata.X``.
    bag : str
        Column of ``adata.obs`` with the bag of each observation; observations with NaN are left out.
    proportions : DataFrame or array-like, optional
        As in :class:`~proportion_ssl.Bags`.
    **settings
        Further arguments of :class:`~proportion_ssl.Bags`, such as ``rounding_step``.

    Returns
    -------
    bags : Bags

    Raises
    ------
    ValueError
        If the key or column does not exist, or the features are not finite.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import pandas as pd
    >>> adata = SimpleNamespace(
    ...     obsm={"uni": np.eye(3)}, obs=pd.DataFrame({"sample": ["a", "a", "b"]}), X=None
    ... )
    >>> bags_from_anndata(adata, "uni", "sample").names.tolist()
    ['a', 'b']
    """
    if features != "X" and features not in adata.obsm:
        raise ValueError(f"adata.obsm has no {features!r}; it has {sorted(adata.obsm)}")
    if bag not in adata.obs:
        raise ValueError(f"adata.obs has no column {bag!r}; it has {sorted(map(str, adata.obs))}")
    X = adata.X if features == "X" else adata.obsm[features]
    values = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise ValueError(f"adata.obsm[{features!r}]: observation {bad} is not finite")
    names = adata.obs[bag]
    is_named = names.notna().to_numpy()
    return Bags(values[is_named], names[is_named].astype(str).to_numpy(), proportions, **settings)
