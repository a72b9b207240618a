"""What more outlines would bring, and which slides to look at next: their part of the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl.reporting._scores import figure

N_SUGGESTED = 5
"""Cases that are named for outlining, and for reading again."""


@dataclass(frozen=True, eq=False)
class ReportOutlook:
    """What more outlines would bring.

    Parameters
    ----------
    curve : DataFrame, optional
        Of :func:`~proportion_ssl.evaluation.learning_curve`.
    gain : (float, float, float), optional
        Of :func:`~proportion_ssl.evaluation.expected_gain`, with its interval.
    n_more : int, default=0
        Outlined slides that `gain` is about, added to the most of the curve.
    suggestions : DataFrame, optional
        Of :func:`~proportion_ssl.evaluation.suggest_slides`.
    note : str, default=""
        Why there is no curve, or how it was made, in a sentence.

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
    """What the template writes; None without an outlook."""
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
                f"({low:+.3f} to {high:+.3f}), if the new ones are like those at hand."
            )
    if outlook.suggestions is not None:
        for what in ("outline", "reread"):
            ranks = outlook.suggestions[f"{what}_rank"].sort_values()
            shown[what] = [str(name) for name in ranks.index[:N_SUGGESTED]]
    return {"outlook": shown}
