"""Write predictions of patches for viewers and other programs.

Label maps and probability maps (pyramidal TIFF, PNG), polygons (QuPath GeoJSON, Digital Slide Archive JSON),
pictures and tables. Every file is written under a temporary name and renamed once complete, so that readers
never see partial files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import shapely
from PIL import Image

from proportion_ssl._atomic import replacing
from proportion_ssl.colors import Color, class_colors
from proportion_ssl.slides.annotations._dsa import dsa_elements
from proportion_ssl.slides.annotations._geojson import to_feature
from proportion_ssl.slides.annotations._label_codes import check_probabilities, label_codes
from proportion_ssl.slides.annotations._polygonize import cell_borders, components, polygonize
from proportion_ssl.slides.annotations.regions import Region
from proportion_ssl.slides.grid import PatchGrid
from proportion_ssl.slides.maps._png import label_picture, overlay_picture
from proportion_ssl.slides.maps._stores import write_annotation_store, write_wsinfer, write_zarr
from proportion_ssl.slides.maps._table import pixel_area_um2, slide_summary, write_table
from proportion_ssl.slides.maps._text import text_file
from proportion_ssl.slides.maps._tiff import write_label_map, write_probability_map
from proportion_ssl.slides.patches.mosaic import stitch

__all__ = [
    "label_picture",
    "overlay_picture",
    "prediction_regions",
    "slide_summary",
    "write_annotation_store",
    "write_dsa",
    "write_geojson",
    "write_label_map",
    "write_picture",
    "write_probability_map",
    "write_table",
    "write_wsinfer",
    "write_zarr",
]


def write_picture(path: str | PathLike[str], picture: Image.Image) -> None:
    """Write a picture as PNG.

    Parameters
    ----------
    path : str or path-like
        Where to write; replaced if it exists.
    picture : PIL.Image.Image
        Output of :func:`label_picture` or :func:`overlay_picture`.
    """
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def prediction_regions(
    labels: Sequence,
    grid: PatchGrid,
    classes: Sequence[str],
    *,
    mpp: float | tuple[float, float],
    probabilities: np.ndarray | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    per: str = "region",
    colors: Mapping[str, Color] | None = None,
) -> list[Region]:
    """Merge patches with the same label into polygons.

    Parameters
    ----------
    labels : sequence of length n_patches
        Class names (None: no label), or numbers of classes (-1: no label).
    grid : PatchGrid
        Patches the labels belong to.
    classes : sequence of str
        Class names.
    mpp : float or tuple of float
        Microns per level-0 pixel, (x, y) if not square; used for the areas.
    probabilities : ndarray of shape (n_patches, n_classes), optional
        Class probabilities in [0, 1]; used for the mean probability of the class of the region.
    values : mapping of str to ndarray of shape (n_patches,), optional
        Further values of patches, such as the uncertainty; their means become measurements of that name.
    per : {"region", "class", "patch"}, default "region"
        One region per connected area (patches that share an edge), one per class, or one per patch with a
        label, in the order of the patches: its box with the probabilities of all classes.
    colors : mapping of str to (red, green, blue), optional
        Colors by class; by default those of ``proportion_ssl.colors.class_colors``.

    Returns
    -------
    regions : list of Region
        Valid polygons that follow the borders of the patches exactly, in level-0 pixels, in the order of
        ``classes``, with the measurements ``"Area um^2"``, ``"Mean probability"`` if probabilities are given,
        and the means of ``values``. Overlaps are divided equally between patches. With ``"patch"``: whole
        boxes with the measurements ``"prob_CLASS"``, named as in WSInfer, to six decimals.

    Raises
    ------
    ValueError
        If labels, probabilities and grid do not match, or ``per`` or ``mpp`` is invalid.

    Examples
    --------
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((30, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> [solid] = prediction_regions(["solid", "solid", None], grid, ["solid"], mpp=0.5)
    >>> solid.geometry.bounds, dict(solid.measurements)
    ((0.0, 0.0, 20.0, 10.0), {'Area um^2': 50.0})
    """
    if per not in ("region", "class", "patch"):
        raise ValueError(f'per must be "region", "class" or "patch", got {per!r}')
    pixel_area = pixel_area_um2(mpp)
    if per == "patch":
        return _patch_regions(labels, grid, classes, probabilities, colors)
    codes = label_codes(labels, classes, grid)
    averaged = {}
    if probabilities is not None:
        checked = check_probabilities(probabilities, classes, grid)
        own = checked[np.arange(len(codes)), codes] if len(codes) else np.zeros(0)
        averaged["Mean probability"] = stitch(own, grid.cells, grid.shape, fill=np.nan)
    for name, one in (values or {}).items():
        averaged[name] = stitch(np.asarray(one, float), grid.cells, grid.shape, fill=np.nan)
    code_map = stitch(codes, grid.cells, grid.shape)
    number_map = components(code_map)
    polygons, numbers = polygonize(number_map, *cell_borders(grid), outside=-1)
    # number, class and mean probability of each area, sorted by class
    first = np.unique(number_map, return_index=True)
    code_of = dict(zip(first[0].tolist(), code_map.ravel()[first[1]].tolist(), strict=True))
    shapes: dict[int, list[shapely.Polygon]] = {}
    for polygon, number in zip(polygons, numbers.tolist(), strict=True):
        shapes.setdefault(code_of[number] if per == "class" else number, []).append(polygon)
    group_map = code_map if per == "class" else number_map
    means = {name: _group_means(group_map, one) for name, one in averaged.items()}
    palette = class_colors(classes, colors)
    regions = []
    for group in sorted(shapes):
        name = classes[group if per == "class" else code_of[group]]
        parts = shapes[group]
        geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
        measurements = {"Area um^2": geometry.area * pixel_area}
        measurements |= {name: float(of_groups[group]) for name, of_groups in means.items()}
        regions.append(Region(name, geometry, palette[name], None, measurements))
    return regions


def _patch_regions(labels, grid, classes, probabilities, colors) -> list[Region]:
    """A region per labeled patch, with all probabilities."""
    codes = label_codes(labels, classes, grid)
    kept = np.flatnonzero(codes >= 0)
    boxes = shapely.box(*grid.boxes[kept].astype(float).T, ccw=False)
    palette = class_colors(classes, colors)
    names = [f"prob_{name}" for name in classes]
    rows: list[Any] = [None] * len(kept)
    if probabilities is not None:
        rows = np.round(check_probabilities(probabilities, classes, grid)[kept], 6).tolist()
    regions = []
    for code, box, row in zip(codes[kept].tolist(), boxes, rows, strict=True):
        measurements = None if row is None else dict(zip(names, row, strict=True))
        regions.append(Region(classes[code], box, palette[classes[code]], None, measurements))
    return regions


def write_geojson(
    path: str | PathLike[str],
    regions: Iterable[Region],
    *,
    offset: tuple[float, float] = (0, 0),
    object_type: str = "annotation",
) -> None:
    """Write regions as GeoJSON that QuPath opens.

    Parameters
    ----------
    path : str or path-like
        Where to write; replaced if it exists. Compressed if it ends in ``.gz``, which QuPath can read.
    regions : iterable of Region
        For instance from :func:`prediction_regions`; written one by one.
    offset : tuple of two float, default (0, 0)
        Level-0 position (x, y) of the file's origin, ``slide.bounds[:2]``: QuPath crops slides with
        ``openslide.bounds-x`` and ``-y`` and uses that corner as the origin.
    object_type : {"annotation", "detection", "tile"}, default "annotation"
        Object type of each region in QuPath. "tile" suits ``per="patch"``: tiles need little memory, cannot
        be edited, and *Measure > Show measurement maps* colors them by any of their measurements.

    Notes
    -----
    One feature per region; rings are closed, a MultiPolygon of one part is a Polygon, the color
    is in ``properties.classification.color``.

    Examples
    --------
    >>> import pathlib, shapely, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "slide.geojson"
    >>> write_geojson(path, [Region("solid", shapely.box(0, 0, 2, 1), (0, 0, 255))])
    >>> json.loads(path.read_text())["features"][0]["properties"]["classification"]
    {'name': 'solid', 'color': [0, 0, 255]}
    """
    if object_type not in ("annotation", "detection", "tile"):
        raise ValueError(
            f'object_type must be "annotation", "detection" or "tile", got {object_type!r}'
        )
    head = '{"type":"FeatureCollection","features":['
    _write_list(path, head, (to_feature(region, offset, object_type) for region in regions), "]}")


def write_dsa(
    path: str | PathLike[str],
    regions: Iterable[Region],
    *,
    name: str,
    offset: tuple[float, float] = (0, 0),
) -> None:
    """Write regions as annotation JSON of large_image and the Digital Slide Archive.

    Parameters
    ----------
    path : str or path-like
        Where to write; replaced if it exists. Compressed if it ends in ``.gz``.
    regions : iterable of Region
        For instance from :func:`prediction_regions`; written one by one.
    name : str
        Name of the annotation.
    offset : tuple of two float, default (0, 0)
        As in :func:`write_geojson`; the origin in large_image is also the corner of the bounds.

    Notes
    -----
    One closed polyline with holes per polygon; the class is the ``group``, the measurements are
    in ``user.measurements``, which the schema leaves free.

    Examples
    --------
    >>> import pathlib, shapely, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "slide.json"
    >>> write_dsa(path, [Region("solid", shapely.box(0, 0, 2, 1))], name="prediction")
    >>> json.loads(path.read_text())["elements"][0]["points"]
    [[2, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 0]]
    """
    head = f'{{"name":{json.dumps(name, ensure_ascii=False)},"elements":['
    _write_list(path, head, dsa_elements(regions, offset), "]}")


def _group_means(group_map: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of a map over each non-negative group number."""
    inside = group_map >= 0
    groups = group_map[inside]
    return np.bincount(groups, values[inside]) / np.maximum(np.bincount(groups), 1)


def _write_list(path: str | PathLike[str], head: str, items: Iterable[dict], tail: str) -> None:
    """Write a document with one long list, item by item."""
    with (
        replacing(path) as temporary,
        text_file(temporary, packed=str(path).lower().endswith(".gz")) as file,
    ):
        file.write(head)
        for number, item in enumerate(items):
            text = json.dumps(item, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            file.write(f",{text}" if number else text)
        file.write(tail)
