"""Write the files of a synthetic cohort: pyramidal TIFF slides and GeoJSON outlines."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import shapely
import tifffile

LEVELS = (1, 2, 4, 8)
_TILE = 256
_QUALITY = 88


def _halve(picture: np.ndarray) -> np.ndarray:
    """Mean of every 2 x 2 pixels; an odd last row or column is dropped, as scanners do."""
    height, width = (n // 2 for n in picture.shape[:2])
    half = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, 256):  # in bands that fit into the cache
        band = picture[2 * top : 2 * min(top + 256, height), : 2 * width].astype(np.uint16)
        total = band[0::2, 0::2] + band[1::2, 0::2] + band[0::2, 1::2] + band[1::2, 1::2]
        half[top : top + 256] = (total + 2) // 4
    return half


def write_slide(path: Path, picture: np.ndarray, mpp: float) -> None:
    """Write a tiled, JPEG-compressed TIFF pyramid with its physical resolution.

    The levels are stored as successive reduced images, a generic tiled TIFF for openslide. The file gets its
    name only once it is complete.

    Parameters
    ----------
    path : Path
    picture : ndarray of shape (height, width, 3), uint8
    mpp : float
        Microns per pixel of the first level.
    """
    partial = path.with_name(path.name + ".partial")
    with tifffile.TiffWriter(partial) as file:
        for level in LEVELS:
            if level > 1:
                picture = _halve(picture)
            density = 1e4 / (mpp * level)  # pixels per centimeter
            file.write(
                picture,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": _QUALITY},
                subfiletype=0 if level == 1 else 1,
                resolution=(density, density),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
                maxworkers=1,
            )
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file that gets its name only once it is complete."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)


def write_outlines(
    path: Path,
    outlines: Mapping[str, shapely.MultiPolygon],
    colors: Mapping[str, tuple[int, int, int]],
    rng: np.random.Generator,
) -> None:
    """Write regions in QuPath's export format: one feature per polygon, in level-0 pixels.

    Features follow the order of `outlines`; `rng` draws their identifiers.
    """
    features = [
        {
            "type": "Feature",
            "id": str(uuid.UUID(bytes=rng.bytes(16), version=4)),
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[_number(x), _number(y)] for x, y in ring.coords]
                    for ring in (polygon.exterior, *polygon.interiors)
                ],
            },
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(colors[name])},
                "isLocked": False,
            },
        }
        for name, polygons in outlines.items()
        for polygon in polygons.geoms
    ]
    collection = {"type": "FeatureCollection", "features": features}
    write_text(path, json.dumps(collection, separators=(",", ":")) + "\n")


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else round(value, 2)
