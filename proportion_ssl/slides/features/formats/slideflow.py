"""slideflow: ``NAME.pt`` with the features, ``NAME.index.npz`` with centers, ``bags_config.json`` for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats.arrays import arrays_of
from proportion_ssl.slides.features.formats.stored import PatchFacts, positive, whole

PROGRAM = "slideflow"
INDEX, CONFIG = ".index.npz", "bags_config.json"


def matches(path: Path) -> bool:
    """Whether an index or a configuration of slideflow lies beside a file of tensors."""
    return _index(path).exists() or (path.parent / CONFIG).exists()


def beside(path: Path) -> tuple[np.ndarray | None, PatchFacts]:
    """Coordinates and facts of a bag.

    ``tile_um`` is a number of microns, or a magnification such as "20x".

    Raises
    ------
    FeatureFileError
        If one of the files cannot be read.
    """
    config, facts = path.parent / CONFIG, PatchFacts(is_center=True)
    if config.exists():
        facts = _facts(_read_config(config), config)
    index = _index(path)
    if not index.exists():
        return None, facts
    arrays = arrays_of(index)
    if set(arrays) != {"arr_0"}:
        raise FeatureFileError(f"{index}: holds {sorted(arrays)}; expected the one array 'arr_0'")
    return arrays["arr_0"], facts


def _index(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(path.suffix) + INDEX)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FeatureFileError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise FeatureFileError(f"{path}: holds no object; expected that of slideflow")
    return content


def _facts(config: dict[str, Any], path: Path) -> PatchFacts:
    extractor = config.get("extractor")
    name = extractor.get("class") if isinstance(extractor, dict) else extractor
    tile_um = config.get("tile_um")
    side_um = magnification = None
    if isinstance(tile_um, str) and tile_um.lower().endswith("x"):
        magnification = positive({"tile_um": tile_um[:-1]}, "tile_um", path)
    else:
        side_um = positive(config, "tile_um", path)
    return PatchFacts(
        is_center=True,
        side_um=side_um,
        size=whole(positive(config, "tile_px", path), "tile_px", path),
        magnification=magnification,
        encoder=name.rsplit(".", 1)[-1] if isinstance(name, str) and name else None,
    )
