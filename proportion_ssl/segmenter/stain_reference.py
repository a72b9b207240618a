"""Color reference of a cohort, determined once and stored with the features."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._atomic import replacing
from proportion_ssl.slides import (
    MacenkoNormalizer,
    ReinhardNormalizer,
    SlideError,
    SlidePatches,
    open_slide,
    tissue_grid,
)

logger = logging.getLogger(__name__)

FILE = "stain_reference.json"
NORMALIZERS = {cls.__name__: cls for cls in (MacenkoNormalizer, ReinhardNormalizer)}


def describe(normalizer: Any) -> dict[str, Any]:
    """Describe a fitted normalizer for JSON.

    Parameters
    ----------
    normalizer : MacenkoNormalizer or ReinhardNormalizer

    Returns
    -------
    description : dict
        ``class``, ``parameters`` and ``state``.

    Raises
    ------
    TypeError
        If the normalizer is of another class.
    """
    name = type(normalizer).__name__
    if NORMALIZERS.get(name) is not type(normalizer):
        raise TypeError(
            f"A normalizer of class {name} cannot be written to a file; only {', '.join(NORMALIZERS)} can."
        )
    check_is_fitted(normalizer)
    fitted = {key: value for key, value in vars(normalizer).items() if key.endswith("_")}
    state = {key: np.asarray(value, dtype=float).tolist() for key, value in sorted(fitted.items())}
    return {"class": name, "parameters": normalizer.get_params(), "state": state}


def build(description: Any) -> Any:
    """Build a fitted normalizer from its description.

    Parameters
    ----------
    description : dict
        Output of :func:`describe`.

    Returns
    -------
    normalizer : MacenkoNormalizer or ReinhardNormalizer

    Raises
    ------
    ValueError
        If the description is invalid.
    """
    try:
        normalizer = NORMALIZERS[description["class"]](**description["parameters"])
        state = {key: np.array(value, dtype=float) for key, value in description["state"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a description of a stain normalizer: {error!r}") from error
    expected = {"MacenkoNormalizer": {"stain_matrix_", "max_concentrations_"}}
    if set(state) != expected.get(description["class"], {"mean_", "std_"}):
        raise ValueError(f"a {description['class']} with the state {sorted(state)}")
    if not all(np.isfinite(value).all() for value in state.values()):
        raise ValueError(f"a {description['class']} whose state is not finite")
    for key, value in state.items():
        setattr(normalizer, key, value)
    return normalizer


def find_reference(
    unfitted: Any,
    held: tuple[Any, str | None],
    folder: Path,
    slides: Sequence[tuple[str, Any, float | None]],
    *,
    magnification: float,
    size: int,
    min_tissue: float,
) -> tuple[Any, str | None]:
    """Fitted normalizer of an earlier fit, of a feature folder, or of the first readable slide.

    Parameters
    ----------
    unfitted : normalizer
        Requested class and parameters.
    held : tuple of (normalizer or None, str or None)
        Normalizer of an earlier fit, and its reference slide.
    folder : Path
        Folder in which the reference is stored.
    slides : sequence of (name, path, mpp or None)
        Candidates, in order.
    magnification, size, min_tissue
        Settings of the patches that are used.

    Returns
    -------
    normalizer : normalizer
        Fitted.
    slide : str or None
        Reference slide of the colors.

    Raises
    ------
    ValueError
        If no slide can be read, or the reference in the folder is damaged or of another normalizer.
    """
    path = folder / FILE
    if held[0] is not None and _same_kind(held[0], unfitted):
        normalizer, name = held
    elif path.exists():
        normalizer, name = _read(path)
        if not _same_kind(normalizer, unfitted):
            raise ValueError(
                f"{path} is the color reference of {normalizer!r}, but {unfitted!r} is requested. Use that "
                "normalizer, or another folder of features."
            )
    else:
        normalizer, name = _fit_on_first(unfitted, slides, magnification, size, min_tissue)
    if type(normalizer).__name__ in NORMALIZERS and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"slide": name, "normalizer": describe(normalizer)}, indent=1)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return normalizer, name


def _read(path):
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return build(stored["normalizer"]), stored["slide"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}, the color reference, is damaged ({error}). Remove it; all features of its folder are "
            "then computed again."
        ) from error


def _same_kind(normalizer, unfitted):
    return type(normalizer) is type(unfitted) and normalizer.get_params() == unfitted.get_params()


def _fit_on_first(unfitted, slides, magnification, size, min_tissue):
    reasons = []
    for name, path, mpp in slides:
        try:
            with open_slide(path, mpp=mpp) as slide:
                grid = slide.grid(magnification=magnification, size=size)
                grid = tissue_grid(slide, grid, min_fraction=min_tissue)
                return unfitted.fit(SlidePatches(slide, grid)), name
        except (SlideError, ValueError) as error:
            logger.warning("%s cannot be the color reference: %s", name, error)
            reasons.append(f"- {name}: {error}")
    raise ValueError("No slide can be the color reference:\n" + "\n".join(reasons))
