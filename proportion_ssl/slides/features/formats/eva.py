"""eva: ``.pt`` files with a list of tensors, one per patch, and ``manifest.csv``; no coordinates."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats.stored import PatchFacts

PROGRAM = "eva"
MANIFEST = "manifest.csv"
COLUMNS = {"origin", "embeddings"}


def matches(path: Path) -> bool:
    """Whether a manifest of eva lies in the folder of a file, or in one above it."""
    return _manifest(path) is not None


def beside(path: Path) -> tuple[np.ndarray | None, PatchFacts]:
    """No coordinates, and the slide of which the manifest says that the file is.

    Raises
    ------
    FeatureFileError
        If the manifest does not list the file.
    """
    manifest = _manifest(path)
    assert manifest is not None
    listed = {row["embeddings"]: row["origin"] for row in _rows(manifest)}
    name = path.relative_to(manifest.parent).as_posix()
    if name not in listed:
        raise FeatureFileError(f"{path}: {manifest} does not list it under 'embeddings'")
    return None, PatchFacts(name=Path(listed[name]).stem)


def _manifest(path: Path) -> Path | None:
    for folder in list(path.parents)[:3]:
        if (folder / MANIFEST).exists() and _rows(folder / MANIFEST):
            return folder / MANIFEST
    return None


def _rows(path: Path) -> list[dict[str, str]]:
    """Rows of a manifest of eva; none for other tables of this name."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader) if set(reader.fieldnames or ()) >= COLUMNS else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FeatureFileError(f"{path}: not readable as a table ({error})") from error
