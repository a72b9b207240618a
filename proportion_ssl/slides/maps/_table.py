"""Summary row of a slide, and tables as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl._atomic import replacing
from proportion_ssl._checks import check_intervals, check_shares
from proportion_ssl.slides.annotations._label_codes import check_probabilities, label_codes
from proportion_ssl.slides.annotations._polygonize import cell_borders
from proportion_ssl.slides.grid import PatchGrid


def slide_summary(
    slide: str,
    labels: Sequence,
    grid: PatchGrid,
    classes: Sequence[str],
    *,
    mpp: float | tuple[float, float],
    probabilities: np.ndarray | None = None,
    recorded: Mapping[str, float] | None = None,
    lower: Mapping[str, float] | None = None,
    upper: Mapping[str, float] | None = None,
    not_tumor: Sequence[str] = ("non-cancer", "vague"),
) -> dict[str, str | int | float]:
    """Summarize a slide: area, proportions, confidence, distance from the recorded proportions.

    Parameters
    ----------
    slide : str
        Name of the slide.
    labels : sequence of length n_patches
        Class names (None: no label), or numbers of classes (-1: no label).
    grid : PatchGrid
        Patches the labels belong to.
    classes : sequence of str
        Class names.
    mpp : float or tuple of float
        Microns per level-0 pixel, (x, y) if not square.
    probabilities : ndarray of shape (n_patches, n_classes), optional
        Class probabilities in [0, 1].
    recorded : mapping of str to float, optional
        Known proportions of the tumor classes, summing to 1 within 0.01; omitted classes have share 0.
    lower, upper : mapping of str to float, optional
        Intervals of the recorded proportions; both or neither. Recorded proportions, which may have been
        rounded, then need not sum to 1.
    not_tumor : sequence of str, default ("non-cancer", "vague")
        Classes other than tumor; all other classes form the tumor area.

    Returns
    -------
    row : dict
        ``slide``; ``n_patches`` with a label; ``tumor_area_mm2``; ``mean_confidence``, the mean over tumor
        patches of the largest probability; per tumor class ``predicted_<class>``, its share of the tumor
        patches, and ``area_mm2_<class>``; if recorded proportions are given, ``recorded_<class>`` and
        ``proportion_distance``. NaN without tumor.

    Raises
    ------
    ValueError
        If labels, probabilities and grid do not match, or recorded proportions have unknown classes, are
        negative, or do not sum to 1 within 0.01.

    Notes
    -----
    The distance is equation (2) of [1]_, ``min(1, sum_c |recorded_c - predicted_c|)``; recorded proportions
    are not rescaled. With intervals it is measured from the nearest share within.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using Class
       Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((4000, 1000), mpp=1.0, patch_mpp=1.0, size=1000)
    >>> labels = ["solid", "solid", "acinar", "non-cancer"]
    >>> row = slide_summary(
    ...     "A", labels, grid, ["acinar", "solid", "non-cancer"], mpp=1.0,
    ...     recorded={"acinar": 0.25, "solid": 0.75},
    ... )
    >>> row["tumor_area_mm2"], round(row["predicted_solid"], 3)
    (3.0, 0.667)
    >>> round(row["proportion_distance"], 3)
    0.167
    """
    codes = label_codes(labels, classes, grid)
    tumor_codes = [i for i, name in enumerate(classes) if name not in set(not_tumor)]
    in_tumor = np.isin(codes, tumor_codes)
    counts = np.array([(codes == i).sum() for i in tumor_codes], dtype=float)
    x, y = cell_borders(grid)
    cell_mm2 = pixel_area_um2(mpp) * 1e-6 * np.outer(np.diff(y), np.diff(x))
    area = cell_mm2[grid.cells[:, 0], grid.cells[:, 1]]
    with np.errstate(invalid="ignore"):
        predicted = counts / in_tumor.sum()
    row: dict[str, str | int | float] = {
        "slide": slide,
        "n_patches": int((codes >= 0).sum()),
        "tumor_area_mm2": float(area[in_tumor].sum()),
    }
    if probabilities is not None:
        confidence = check_probabilities(probabilities, classes, grid).max(axis=1, initial=0)
        inside = confidence[in_tumor]
        row["mean_confidence"] = float(inside.mean()) if len(inside) else float("nan")
    names = [classes[i] for i in tumor_codes]
    for name, share in zip(names, predicted, strict=True):
        row[f"predicted_{name}"] = float(share)
    for name, code in zip(names, tumor_codes, strict=True):
        row[f"area_mm2_{name}"] = float(area[codes == code].sum())
    if recorded is not None:
        known = _in_order(recorded, names, slide)
        any_sum = lower is not None
        check_shares(known, f"slide {slide}: the recorded proportions", any_sum=any_sum)
        nearest = _nearest(known, predicted, (lower, upper), names, slide)
        for name, share in zip(names, known, strict=True):
            row[f"recorded_{name}"] = float(share)
        row["proportion_distance"] = float(np.minimum(1.0, np.abs(nearest - predicted).sum()))
    return row


def write_table(path: str | PathLike[str], rows: Sequence[Mapping] | pd.DataFrame) -> None:
    """Write rows as CSV (UTF-8, one header line, empty fields for NaN).

    Parameters
    ----------
    path : str or path-like
        Where to write; replaced if it exists.
    rows : sequence of mappings, or DataFrame
        For instance from :func:`slide_summary`.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)


def pixel_area_um2(mpp: float | tuple[float, float]) -> float:
    """Area of a level-0 pixel in square microns; checks ``mpp``."""
    given: Any = mpp
    pair = (given, given) if np.ndim(given) == 0 else tuple(given)
    if len(pair) != 2 or not all(np.isfinite(value) and value > 0 for value in pair):
        raise ValueError(f"mpp must be positive microns per level-0 pixel, or (x, y), got {mpp!r}")
    return float(pair[0] * pair[1])


def _nearest(
    shares: np.ndarray,
    predicted: np.ndarray,
    ends: Sequence[Mapping[str, float] | None],
    names: Sequence[str],
    slide: str,
) -> np.ndarray:
    """Recorded shares; with intervals, the shares within them that are nearest to the predicted ones."""
    lower, upper = ends
    if lower is None and upper is None:
        return shares
    if lower is None or upper is None:
        raise ValueError(f"slide {slide}: lower and upper belong together; give both.")
    low, high = (_in_order(end, names, slide) for end in (lower, upper))
    check_intervals(low[np.newaxis], high[np.newaxis], [slide], shares[np.newaxis])
    return np.clip(predicted, low, high)


def _in_order(shares: Mapping[str, float], names: Sequence[str], slide: str) -> np.ndarray:
    unknown = sorted(set(shares) - set(names))
    if unknown:
        raise ValueError(
            f"slide {slide}: recorded proportions name {unknown}, which are not among the tumor "
            f"classes {list(names)}"
        )
    return np.array([shares.get(name, 0.0) for name in names], dtype=float)
