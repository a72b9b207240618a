"""Section of the report on the gain from more outlines and on the slides to review next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl.reporting._scores import figure

N_SUGGESTED = 5
"""Number of cases suggested for outlining, and for review."""


@dataclass(frozen=True, eq=False)
class ReportOutlook:
    """Expected gain from more outlines.

    Parameters
    ----------
    curve : DataFrame, optional
        Output of :func:`~proportion_ssl.evaluation.learning_curve`.
    gain : (float, float, float), optional
        Output of :func:`~proportion_ssl.evaluation.expected_gain`: gain and its interval.
    n_more : int, default=0
        Number of additional outlined slides for which `gain` is computed, beyond the largest number in the
        curve.
    suggestions : DataFrame, optional
        Output of :func:`~proportion_ssl.evaluation.suggest_slides`.
    note : str, default=""
        One sentence on how the curve was made, or why it is missing.

    Examples
    --------
    >>> ReportOutlook(note="Three outlined slides are too few for a curve.").n_more
    0
    """

    curve: pd.DataFrame | None = None
    gain: tuple[float, float, float] | None = None
    n_more: int = 0
    suggestions: pd.DataFrame | None = None
    note: str = ""


def view_outlook(outlook: Any) -> dict[str, Any]:
    """Values for the template; None without an outlook."""
    if outlook is None:
        return {"outlook": None}
    if not isinstance(outlook, ReportOutlook):
        raise TypeError(f"outlook must be a ReportOutlook, got {type(outlook).__name__}.")
    shown: dict[str, Any] = {
        "note": outlook.note,
        "rows": [],
        "gain": "",
        "outline": [],
        "reread": [],
    }
    if outlook.curve is not None:
        groups = outlook.curve.groupby("n_outlined")["score"]
        for n, scores in groups:
            spread = scores.std() if scores.notna().sum() > 1 else np.nan
            shown["rows"].append(
                {
                    "n": int(n),
                    "value": float(scores.mean()),
                    "shown": figure(scores.mean()),
                    "spread": f"± {figure(spread)}" if np.isfinite(spread) else "",
                    "draws": int(scores.notna().sum()),
                }
            )
        if outlook.gain is not None:
            gain, low, high = outlook.gain
            most = int(outlook.curve["n_outlined"].max())
            shown["gain"] = (
                f"From {most} to {most + outlook.n_more} outlined cases: {gain:+.3f} mIoU expected "
                f"({low:+.3f} to {high:+.3f}), if new cases resemble the present ones."
            )
    if outlook.suggestions is not None:
        first = outlook.suggestions.sort_values("outline_rank")[:N_SUGGESTED]
        shown["outline"] = [str(name) for name in first.index]
        first = outlook.suggestions.sort_values("reread_rank")[:N_SUGGESTED]
        shown["reread"] = [(str(name), f"{one:.2f}") for name, one in first["distance"].items()]
    return {"outlook": shown}
