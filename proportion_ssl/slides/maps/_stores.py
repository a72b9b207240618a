"""Predictions for other programs: annotation store of TIAToolbox, zarr arrays, table of WSInfer."""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely

from proportion_ssl._atomic import replacing
from proportion_ssl.slides.annotations._label_codes import check_probabilities
from proportion_ssl.slides.annotations.regions import Region
from proportion_ssl.slides.grid import PatchGrid

ROWS_AT_ONCE = 4096
STORE_VERSION = "1.0.1"  # of TIAToolbox's tables, which its code checks

_TABLES = """
CREATE TABLE metadata (key TEXT UNIQUE, value TEXT);
CREATE VIRTUAL TABLE rtree USING rtree(id, min_x, max_x, min_y, max_y);
CREATE TABLE annotations (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE, objtype TEXT, cx FLOAT NOT NULL, cy FLOAT NOT NULL,
    geometry BLOB, properties TEXT, area FLOAT NOT NULL
);
"""


def write_wsinfer(
    path: str | PathLike[str],
    probabilities: np.ndarray,
    grid: PatchGrid,
    classes: Sequence[str],
) -> None:
    """Write the probabilities of patches as CSV, in the columns of WSInfer.

    Parameters
    ----------
    path : str or path-like
        Where to write; replaced if it exists. Compressed if it ends in ``.gz``.
    probabilities : ndarray of shape (n_patches, n_classes)
        In [0, 1].
    grid : PatchGrid
        Patches the probabilities belong to.
    classes : sequence of str
        Class names.

    Notes
    -----
    Columns ``minx``, ``miny``, ``width`` and ``height`` in level-0 pixels, and ``prob_CLASS``.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "slide.csv"
    >>> write_wsinfer(path, np.array([[0.25, 0.75], [1, 0]]), grid, ["acinar", "solid"])
    >>> print(path.read_text().splitlines()[:2])
    ['minx,miny,width,height,prob_acinar,prob_solid', '0,0,10,10,0.25,0.75']
    """
    values = check_probabilities(probabilities, classes, grid)
    corner, extent = grid.boxes[:, :2], grid.boxes[:, 2:] - grid.boxes[:, :2]
    names = ["minx", "miny", "width", "height"]
    table = pd.DataFrame(np.hstack([corner, extent]), columns=names)
    for name, column in zip(classes, values.T, strict=True):
        table[f"prob_{name}"] = column
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, compression="gzip" if _is_packed(path) else None)


def write_zarr(
    path: str | PathLike[str],
    probabilities: np.ndarray,
    grid: PatchGrid,
    classes: Sequence[str],
) -> None:
    """Write the probabilities of patches as a zarr group, as TIAToolbox's engines do.

    Parameters
    ----------
    path : str or path-like
        Folder to write, ``NAME.zarr``; replaced if it exists.
    probabilities : ndarray of shape (n_patches, n_classes)
        In [0, 1].
    grid : PatchGrid
        Patches the probabilities belong to.
    classes : sequence of str
        Class names.

    Raises
    ------
    ValueError
        If probabilities and grid do not match, or the folder is not a zarr group.

    Notes
    -----
    Format 2, which zarr 2 and 3 read: ``probabilities`` (n_patches, n_classes) float32, ``predictions``
    (n_patches,) int64, the number of the most probable class, and ``coordinates`` (n_patches, 4) int64,
    level-0 boxes ``x0, y0, x1, y1``. The names are the attribute ``class_dict``, by number.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "slide.zarr"
    >>> write_zarr(path, np.array([[0.25, 0.75], [1, 0]]), grid, ["acinar", "solid"])
    >>> sorted(part.name for part in path.iterdir())
    ['.zattrs', '.zgroup', 'coordinates', 'predictions', 'probabilities']
    """
    path = Path(path)
    values = check_probabilities(probabilities, classes, grid)
    if path.exists() and not (path / ".zgroup").exists():
        raise ValueError(f"{path} exists and is not a zarr group; use another name")
    made = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        made.mkdir(parents=True)
        _write_json(made / ".zgroup", {"zarr_format": 2})
        names = {str(number): name for number, name in enumerate(classes)}
        _write_json(made / ".zattrs", {"class_dict": names})
        predictions = values.argmax(axis=1) if len(classes) else np.zeros(len(grid))
        _write_array(made / "probabilities", values.astype("<f4"))
        _write_array(made / "predictions", predictions.astype("<i8"))
        _write_array(made / "coordinates", grid.boxes.astype("<i8"))
        if path.exists():
            shutil.rmtree(path)
        made.rename(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_annotation_store(
    path: str | PathLike[str], regions: Iterable[Region], *, offset: tuple[float, float] = (0, 0)
) -> None:
    """Write regions as an annotation store of TIAToolbox (SQLite).

    Parameters
    ----------
    path : str or path-like
        ``NAME.db``; replaced if it exists.
    regions : iterable of Region
        For instance from :func:`prediction_regions`.
    offset : tuple of two float, default (0, 0)
        Level-0 position (x, y) of the file's origin. The origin in TIAToolbox is the corner of the whole
        slide, as in OpenSlide.

    Notes
    -----
    Tables as TIAToolbox 1.3 to 2.1 makes them, without its library. Properties are ``type`` (the class),
    ``color`` and the measurements by name.

    Examples
    --------
    >>> import pathlib, shapely, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "slide.db"
    >>> write_annotation_store(path, [Region("solid", shapely.box(0, 0, 2, 1))])
    >>> with closing(sqlite3.connect(path)) as store:
    ...     store.execute("SELECT objtype, area, properties FROM annotations").fetchall()
    [('Polygon', 2.0, '{"type":"solid"}')]
    """
    with replacing(path) as temporary, closing(sqlite3.connect(temporary)) as store:
        store.executescript(_TABLES)
        about = {"version": STORE_VERSION, "compression": "zlib", "compression_level": 9}
        rows = [(key, json.dumps(value)) for key, value in about.items()]
        store.executemany("INSERT INTO metadata VALUES (?, ?)", rows)
        for number, region in enumerate(regions, start=1):
            geometry = shapely.transform(region.geometry, lambda points: points - offset)
            x0, y0, x1, y1 = geometry.bounds
            center = geometry.centroid
            packed = zlib.compress(shapely.to_wkb(geometry), 9)
            row = (number, str(uuid.uuid4()), geometry.geom_type, center.x, center.y, packed)
            store.execute(
                "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, _properties(region), geometry.area),
            )
            store.execute("INSERT INTO rtree VALUES (?, ?, ?, ?, ?)", (number, x0, x1, y0, y1))
        store.commit()


def _properties(region: Region) -> str:
    properties: dict[str, Any] = {"type": region.class_name}
    if region.color is not None:
        properties["color"] = [part / 255 for part in region.color]
    if region.name is not None:
        properties["name"] = region.name
    properties |= {key: float(value) for key, value in (region.measurements or {}).items()}
    return json.dumps(properties, separators=(",", ":"), ensure_ascii=False)


def _write_array(folder: Path, values: np.ndarray) -> None:
    """One array of zarr format 2, in chunks of rows packed by zlib."""
    folder.mkdir()
    chunk = (ROWS_AT_ONCE, *values.shape[1:])
    about = {
        "zarr_format": 2,
        "shape": list(values.shape),
        "chunks": [max(n, 1) for n in chunk],
        "dtype": values.dtype.str,
        "compressor": {"id": "zlib", "level": 5},
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    _write_json(folder / ".zarray", about)
    rest = ".0" * (values.ndim - 1)
    for number, start in enumerate(range(0, len(values), ROWS_AT_ONCE)):
        block = np.zeros(chunk, dtype=values.dtype)  # the last chunk is padded
        rows = values[start : start + ROWS_AT_ONCE]
        block[: len(rows)] = rows
        (folder / f"{number}{rest}").write_bytes(zlib.compress(block.tobytes(), 5))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _is_packed(path: str | PathLike[str]) -> bool:
    return str(path).lower().endswith(".gz")
