"""Tiles of LazySlide / wsidata: tables of features in, predictions out. Neither library is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.files import PatchFeatures
from proportion_ssl.slides.features.geometry import lattice_of

RESULT = "proportion_ssl"
"""Key of ``wsi.attrs`` under which proportions are kept."""


def read_wsi_tiles(wsi: Any, model: str, *, tile_key: str = "tiles") -> PatchFeatures:
    """Features of the tiles of a slide from an object of wsidata.

    Parameters
    ----------
    wsi : WSIData
        After LazySlide's ``pp.tile_tissues`` and ``tl.feature_extraction``, or read from its SpatialData
        file.
    model : str
        Name under which the features were extracted: the table is ``MODEL_TILES``.
    tile_key : str, default="tiles"
        Name of the tiles.

    Returns
    -------
    features : PatchFeatures
        With grid, resolution and size of the slide, as far as ``wsi.attrs`` states them; `encoder` is
        `model`.

    Raises
    ------
    FeatureFileError
        If there is no such table, or tiles and features do not fit together.
    """
    key = f"{model}_{tile_key}"
    if key not in wsi.tables or tile_key not in wsi.shapes:
        raise FeatureFileError(
            f"no table {key!r} or no tiles {tile_key!r}: tables are {sorted(wsi.tables)}, shapes "
            f"{sorted(wsi.shapes)}; run LazySlide's pp.tile_tissues and tl.feature_extraction"
        )
    X = wsi.tables[key].X
    values = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)
    boxes = np.asarray(wsi.shapes[tile_key].geometry.bounds, dtype=float).reshape(-1, 4)
    if len(boxes) != len(values) or values.ndim != 2:
        raise FeatureFileError(
            f"{key}: features of shape {values.shape} for {len(boxes)} tiles; extract them again"
        )
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise FeatureFileError(
            f"{key}: tile {bad} has NaN or infinite features; extract them again"
        )
    slide = dict(wsi.attrs.get("slide_properties", {}))
    spec = dict(wsi.attrs.get("tile_spec", {}).get(tile_key, {}))
    mpp, shape = slide.get("mpp"), slide.get("shape")
    dimensions = None if shape is None else (int(shape[1]), int(shape[0]))
    side = float(np.median(boxes[:, 2:] - boxes[:, :2])) if len(boxes) else None
    lattice = None
    if side is not None and {"width", "stride_width", "mpp"} <= spec.keys() and spec["mpp"]:
        lattice = lattice_of(
            boxes[:, :2],
            side,
            int(spec["width"]),
            float(spec["mpp"]),
            overlap=int(spec["width"]) - int(spec["stride_width"]),
            dimensions=dimensions,
        )
    return PatchFeatures(
        features=values,
        locations=np.floor(boxes[:, :2] + 0.5).astype(np.int64),
        patch_size_level0=side,
        attributes={"slide_properties": slide, "tile_spec": spec},
        grid=None if lattice is None else lattice.grid,
        stride=None if lattice is None else lattice.stride,
        dimensions=dimensions,
        mpp=None if mpp is None else (float(mpp), float(mpp)),
        encoder=model,
        n_features=values.shape[1],
        program="LazySlide",
        patch_size=int(spec["width"]) if "width" in spec else None,
    )


def write_wsi_predictions(
    wsi: Any,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    proportions: Mapping[str, float] | None = None,
    tile_key: str = "tiles",
) -> None:
    """Put predictions of tiles into an object of wsidata, for its viewers and its file.

    Parameters
    ----------
    wsi : WSIData
        ``wsi.shapes[tile_key]`` gets columns ``prob_CLASS`` and ``predicted``, which
        ``zs.pl.tiles(wsi, color="prob_CLASS")`` draws; ``wsi.attrs["proportion_ssl"]`` the proportions.
    probabilities : ndarray of shape (n_tiles, n_classes)
        In [0, 1].
    classes : sequence of str
        Class names.
    proportions : mapping of str to float, optional
        Of the slide. Default: shares of the predicted classes.
    tile_key : str, default="tiles"
        Name of the tiles.

    Raises
    ------
    ValueError
        If there is not one row per tile, or a value lies outside [0, 1].
    """
    tiles, values = wsi.shapes[tile_key], np.asarray(probabilities, dtype=float)
    if values.shape != (len(tiles), len(classes)) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"probabilities must have shape ({len(tiles)}, {len(classes)}), one row per tile, with values in "
            f"[0, 1]; got shape {values.shape}"
        )
    predicted = np.array(classes, dtype=object)[values.argmax(axis=1)]
    for name, column in zip(classes, values.T, strict=True):
        tiles[f"prob_{name}"] = column
    tiles["predicted"] = predicted.astype(str)
    if proportions is None:
        proportions = {name: float(np.mean(predicted == name)) for name in classes}
    shares = {name: float(share) for name, share in proportions.items()}
    wsi.attrs[RESULT] = {**wsi.attrs.get(RESULT, {}), tile_key: {"proportions": shares}}
