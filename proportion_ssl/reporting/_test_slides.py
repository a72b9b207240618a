"""Section of the report on test slides: scores, comparisons, agreement, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl.evaluation import (
    IASLC_2020,
    GradingScheme,
    Reliability,
    cohen_kappa,
    grade,
    predominant_class,
    proportion_agreement,
)
from proportion_ssl.reporting._plots import agreement_panels, reliability_diagram
from proportion_ssl.reporting._scores import EXPLAINED, figure


@dataclass(frozen=True, eq=False)
class ReportTest:
    """Results on test slides, which were not used for training.

    Parameters
    ----------
    scores : DataFrame
        One row per system, named by the index; columns are scores, and ``<score>_low`` and ``<score>_high``
        if they have intervals. A column ``patches`` is shown as a whole number.
    comparisons : DataFrame, optional
        Output of :func:`~proportion_ssl.evaluation.compare_systems`, with an additional column ``score``.
    recorded, predicted : DataFrame of shape (n_cases, n_classes), optional
        Shares by case; both or neither. Rows of NaN without a record or cancer.
    reliability : Reliability, optional
        Output of :func:`~proportion_ssl.evaluation.reliability` on outlined patches of these slides.
    scheme : GradingScheme, default=IASLC_2020
        Grades are shown if the scheme includes all classes.
    note : str, default=""
        One sentence on how the slides were predicted.

    Examples
    --------
    >>> import pandas as pd
    >>> scores = pd.DataFrame({"mIoU": [0.8], "mIoU_low": [0.7], "mIoU_high": [0.9]}, index=["robust"])
    >>> ReportTest(scores).note
    ''
    """

    scores: pd.DataFrame
    comparisons: pd.DataFrame | None = None
    recorded: pd.DataFrame | None = None
    predicted: pd.DataFrame | None = None
    reliability: Reliability | None = None
    scheme: GradingScheme = IASLC_2020
    note: str = ""


def view_test(test: Any, classes: Sequence[str]) -> dict[str, Any]:
    """Values for the template; empty without test slides."""
    empty = dict.fromkeys(("test_scores", "comparisons", "agreement", "panels", "patterns"))
    if test is None:
        return {**empty, "diagram": None, "test_note": "", "explained": []}
    if not isinstance(test, ReportTest):
        raise TypeError(f"test must be a ReportTest, got {type(test).__name__}.")
    if (test.recorded is None) != (test.predicted is None):
        raise ValueError("test: recorded and predicted belong together; give both.")
    names, rows = _score_rows(test.scores)
    shown = {
        **empty,
        "test_scores": {"names": names, "rows": rows},
        "comparisons": None if test.comparisons is None else _comparison_rows(test.comparisons),
        "diagram": None if test.reliability is None else reliability_diagram(test.reliability),
        "test_note": test.note,
        "explained": [(name, EXPLAINED[name]) for name in names if name in EXPLAINED],
    }
    if test.recorded is not None and test.predicted is not None:
        unknown = [name for name in test.recorded.columns if name not in classes]
        if unknown:
            raise ValueError(f"test: recorded names {unknown}, not among the classes {classes}.")
        predicted = test.predicted.reindex(index=test.recorded.index, columns=test.recorded.columns)
        shown["patterns"] = _patterns(test.recorded, predicted, test.scheme)
        both = ~(test.recorded.isna().any(axis=1) | predicted.isna().any(axis=1))
        if both.any():
            table = proportion_agreement(test.recorded, predicted)
            shown["agreement"] = [_agreement_row(name, row) for name, row in table.iterrows()]
            shown["panels"] = agreement_panels(test.recorded, predicted, table, classes)
    return shown


def _score_rows(scores):
    names = [n for n in scores.columns if not str(n).endswith(("_low", "_high"))]
    rows = []
    for system, row in scores.iterrows():
        cells = []
        for name in names:
            value = float(row[name])
            low, high = (row.get(f"{name}_{end}", np.nan) for end in ("low", "high"))
            text = f"{value:.0f}" if name == "patches" and np.isfinite(value) else figure(value)
            interval = f"{figure(low)} to {figure(high)}" if np.isfinite([low, high]).all() else ""
            cells.append((value, text, interval))
        rows.append((str(system), cells))
    return [str(name) for name in names], rows


def _comparison_rows(table):
    rows = []
    for row in table.to_dict("records"):
        has_interval = np.isfinite([row["low"], row["high"]]).all()
        rows.append(
            {
                "pair": f"{row['system']} - {row['reference']}",
                "score": row.get("score", ""),
                "difference": row["difference"],
                "shown": f"{row['difference']:+.3f}" if np.isfinite(row["difference"]) else "–",
                "interval": f"{row['low']:+.3f} to {row['high']:+.3f}" if has_interval else "–",
                "p": row["p_adjusted"],
                "p_shown": _p_value(row["p_adjusted"]),
                "n": row["n_groups"],
            }
        )
    return rows


def _p_value(p):
    if not np.isfinite(p):
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}"


def _percent(value):
    return f"{100 * value:+.1f}" if np.isfinite(value) else "–"


def _agreement_row(name, row):
    icc = figure(row["ICC"])
    if np.isfinite([row["ICC_low"], row["ICC_high"]]).all():
        icc += f" ({figure(row['ICC_low'])} to {figure(row['ICC_high'])})"
    limits = f"{_percent(row['limit_low'])} to {_percent(row['limit_high'])}"
    return {
        "name": name,
        "n": int(row["n"]),
        "error": f"{100 * row['mean_absolute_error']:.1f}",
        "bias": _percent(row["bias"]),
        "limits": limits if np.isfinite(row["limit_low"]) else "–",
        "icc": icc,
        "concordance": figure(row["concordance"]),
        "note": row["note"],
    }


def _patterns(recorded, predicted, scheme):
    """Predominant class and grade of each case, and their agreement."""
    found = {"class": [predominant_class(shares) for shares in (recorded, predicted)]}
    if scheme.knows(list(recorded.columns)):
        found["grade"] = [grade(shares, scheme) for shares in (recorded, predicted)]
    rows = []
    for i, case in enumerate(recorded.index):
        cells = []
        for pair in found.values():
            true, guess = pair[0][i], pair[1][i]
            agrees = None if true is None or guess is None else true == guess
            cells.append(("–" if true is None else true, "–" if guess is None else guess, agrees))
        rows.append((str(case), cells))
    summary = []
    for what, (true, guess) in found.items():
        kappa = cohen_kappa(true, guess, weights="quadratic" if what == "grade" else None)
        if not kappa.n:
            continue
        right = sum(t == g for t, g in zip(true, guess, strict=True) if None not in (t, g))
        kind = "quadratically weighted kappa" if what == "grade" else "Cohen's kappa"
        text = f"{right} of {kappa.n} agree"
        if np.isfinite(kappa.value):
            text += f", {kind} {kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})"
        else:
            text += "; all are the same, so kappa is not defined"
        summary.append((what, text))
    return {"what": list(found), "rows": rows, "summary": summary, "scheme": scheme.name}
