"""Positions of points and lines in the drawings of the page, in percent of the panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from proportion_ssl.evaluation import Reliability

#: A bias closer to a limit than this, in percent of the height, gets no separate label.
NEAR = 12
#: Smallest half height of the panels of differences.
LEAST_REACH = 0.05


class Panel(NamedTuple):
    """Differences of one class against their means."""

    code: int  # of the class
    name: str
    points: tuple[tuple[float, float], ...]
    lines: tuple[tuple[float, str], ...]  # position and label of lower limit, bias, upper limit
    reach: float


class Diagram(NamedTuple):
    """Accuracy as a function of the largest probability."""

    points: tuple[tuple[float, float, int], ...]  # x, y, number of patches
    path: str
    ece: float
    brier: float
    n: int


def agreement_panels(
    recorded: pd.DataFrame, predicted: pd.DataFrame, table: pd.DataFrame, classes: Sequence[str]
) -> list[Panel]:
    """Bland-Altman panels, all of the same height.

    Parameters
    ----------
    recorded, predicted : DataFrame of shape (n_cases, n_classes)
    table : DataFrame
        Output of :func:`~proportion_ssl.evaluation.proportion_agreement`.
    classes : sequence of str
        Classes of the report, for the colors.
    """
    complete = ~(recorded.isna().any(axis=1) | predicted.isna().any(axis=1))
    difference = (predicted - recorded)[complete]
    mean = ((predicted + recorded) / 2)[complete]
    limits = table[["limit_low", "bias", "limit_high"]].to_numpy(dtype=float)
    widest = np.nanmax(np.abs(np.append(difference.to_numpy(dtype=float), limits)))
    reach = max(LEAST_REACH, np.ceil(20 * 1.05 * float(widest)) / 20)  # to the next 5 points
    panels = []
    for name, lines in zip(recorded.columns, limits, strict=True):
        x, y = 100 * mean[name], 50 - 50 * difference[name] / reach
        panels.append(
            Panel(
                classes.index(name),
                name,
                tuple(zip(x.round(2).tolist(), y.round(2).tolist(), strict=True)),
                _lines(lines[np.isfinite(lines)], reach),
                reach,
            )
        )
    return panels


def _lines(values, reach):
    places = np.round(50 - 50 * values / reach, 2)
    texts = [f"{100 * value:+.0f}" for value in values]
    if len(places) == 3 and np.abs(np.diff(places)).min() < NEAR:
        texts[1] = ""
    return tuple(zip(places.tolist(), texts, strict=True))


def reliability_diagram(found: Reliability) -> Diagram:
    """Points of the reliability diagram."""
    bins = found.bins
    x, y = (100 * bins["confidence"]).round(2), (100 - 100 * bins["accuracy"]).round(2)
    points = tuple(zip(x.tolist(), y.tolist(), bins["n"].tolist(), strict=True))
    path = "M" + "L".join(f"{a} {b}" for a, b, _ in points)
    return Diagram(points, path, found.ece, found.brier, found.n)
