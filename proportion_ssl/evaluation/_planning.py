"""Planning: expected gain from more outlined or recorded slides, and which slides to annotate next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from proportion_ssl._checks import check_fraction
from proportion_ssl.evaluation._uncertainty import entropy_uncertainty, margin_uncertainty
from proportion_ssl.proportions.intervals import proportion_distance

#: Exponents of the power law in the search.
EXPONENTS = np.linspace(0.1, 2.0, 39)


def learning_curve(
    fit_and_score: Callable[[list, list], float],
    outlined: Sequence,
    recorded: Sequence,
    *,
    n_outlined: Sequence[int],
    n_recorded: Sequence[int] | None = None,
    n_repeats: int = 5,
    random_state: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Measure the score as a function of the number of outlined and recorded training slides.

    Parameters
    ----------
    fit_and_score : callable
        Takes a list of outlined and a list of recorded slides, trains on these only, and returns the score
        on other slides.
    outlined, recorded : sequence
        All available training slides, such as their names.
    n_outlined : sequence of int
        Numbers of outlined slides to try, at least 1.
    n_recorded : sequence of int, optional
        Numbers of recorded slides to try. Default: all of them.
    n_repeats : int, default=5
        Number of random draws of slides. Within a draw, smaller sets are subsets of larger ones.
    random_state : int or numpy Generator, default=0

    Returns
    -------
    curve : DataFrame
        One row per draw and pair of numbers: ``repeat``, ``n_outlined``, ``n_recorded``, ``score``.

    Raises
    ------
    ValueError
        If a number exceeds the number of slides, or is below 1 for outlined slides.

    Examples
    --------
    >>> def fit_and_score(outlined, recorded):
    ...     return 1 - 0.5 / len(outlined)
    >>> learning_curve(fit_and_score, "abcd", "xyz", n_outlined=[1, 2], n_repeats=1).values.tolist()
    [[0.0, 1.0, 3.0, 0.5], [0.0, 2.0, 3.0, 0.75]]
    """
    outlined, recorded = list(outlined), list(recorded)
    n_recorded = [len(recorded)] if n_recorded is None else list(n_recorded)
    for what, numbers, least, most in (
        ("n_outlined", n_outlined, 1, len(outlined)),
        ("n_recorded", n_recorded, 0, len(recorded)),
    ):
        if not len(numbers) or min(numbers) < least or max(numbers) > most:
            raise ValueError(
                f"{what} must hold numbers from {least} to {most} slides, got {list(numbers)}."
            )
    rng = np.random.default_rng(random_state)
    rows = []
    for repeat in range(n_repeats):
        first = [outlined[i] for i in rng.permutation(len(outlined))]
        second = [recorded[i] for i in rng.permutation(len(recorded))]
        for n in n_outlined:
            for m in n_recorded:
                rows.append((repeat, n, m, float(fit_and_score(first[:n], second[:m]))))
    return pd.DataFrame(rows, columns=["repeat", "n_outlined", "n_recorded", "score"])


def expected_gain(
    curve: pd.DataFrame, n_more: int, *, by: str = "n_outlined", level: float = 0.95
) -> tuple[float, float, float]:
    r"""Expected gain in score from more slides, extrapolated from a learning curve.

    Parameters
    ----------
    curve : DataFrame
        From :func:`learning_curve`, with at least three numbers of slides and two repeats. The number of
        slides of the other kind should be constant.
    n_more : int
        Number of slides added to the largest number on the curve.
    by : {"n_outlined", "n_recorded"}, default="n_outlined"
        Kind of slides to add.
    level : float in (0, 1), default=0.95
        Level of the interval.

    Returns
    -------
    gain, low, high : float
        Gain in score and its interval. The interval reflects the variation between repeats, not slides that
        differ from the available ones.

    Raises
    ------
    ValueError
        If there are too few numbers of slides or repeats.

    Notes
    -----
    The power law :math:`a - b\, n^{-c}` with :math:`b \ge 0` is fitted to the mean scores by least squares;
    for the interval, this is done on repeats drawn with replacement. Gains are non-negative by construction.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [(r, n, 40, 0.9 - 0.4 / n) for r in range(3) for n in (2, 4, 8)]
    >>> curve = pd.DataFrame(rows, columns=["repeat", "n_outlined", "n_recorded", "score"])
    >>> round(expected_gain(curve, 8)[0], 3)
    0.025
    """
    check_fraction(level, "level", closed="neither")
    table = curve.pivot_table(index="repeat", columns=by, values="score").dropna()
    n = table.columns.to_numpy(dtype=float)
    n = np.maximum(n, 0.5) if by == "n_recorded" else n  # avoids n = 0
    if len(n) < 3 or len(table) < 2:
        raise ValueError(
            f"Give three or more numbers of slides and two or more repeats, got {len(n)} numbers and "
            f"{len(table)} repeats."
        )
    scores, rng = table.to_numpy(), np.random.default_rng(0)
    gain = _gain(n, scores.mean(axis=0), n_more)
    drawn = rng.integers(0, len(scores), size=(200, len(scores)))
    gains = [_gain(n, scores[rows].mean(axis=0), n_more) for rows in drawn]
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return gain, float(low), float(high)


def suggest_slides(
    probabilities: Any, bags: Any, lower: Any, upper: Any, *, names: Sequence | None = None
) -> pd.DataFrame:
    r"""Suggest recorded slides to outline next, and records to read again.

    Parameters
    ----------
    probabilities : array-like of shape (n_patches, n_classes)
        Probabilities of the tumor patches of all recorded slides, preferably from models that were not
        trained on their records.
    bags : array-like of int, shape (n_patches,)
        Slide of each patch, as an index of the rows of ``lower``.
    lower, upper : array-like of shape (n_bags, n_classes)
        Intervals of the recorded shares.
    names : sequence of n_bags names, optional
        Default: positions.

    Returns
    -------
    table : DataFrame
        One row per slide, sorted by priority for outlining: ``outline`` and ``reread``, the scores
        described below; ``outline_rank`` and ``reread_rank``, from 1; ``distance`` and ``uncertainty``, the
        components of ``reread``.

    Raises
    ------
    ValueError
        If shapes are inconsistent or a slide has no patch.

    Notes
    -----
    ``distance`` is the sum over the classes of the absolute differences between predicted shares and the
    nearest ones that the record allows, in [0, 2]; ``uncertainty`` is the mean of one minus the margin of
    the probabilities, in [0, 1]. A record is doubtful if a confident model contradicts it:
    ``reread = distance * (1 - uncertainty)``.

    Outlines are most useful on slides with many classes in similar shares: ``outline`` is the entropy of the
    midpoints of the recorded intervals, divided by its maximum. It does not depend on the model: in synthetic
    cohorts, outlining the least certain slides, or those farthest from their record, helped less than
    outlining random slides (``benchmarks/accuracy/suggestions.py``).

    Examples
    --------
    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.6, 0.4]]
    >>> record = [[0.0, 1.0], [0.5, 0.5]]
    >>> table = suggest_slides(probabilities, [0, 0, 1, 1], record, record, names=["a", "b"])
    >>> table["reread_rank"].to_dict()
    {'b': 2, 'a': 1}
    """
    p, index = np.asarray(probabilities, dtype=float), np.asarray(bags)
    low, high = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    n_bags = len(low)
    if p.ndim != 2 or low.shape != high.shape or low.shape != (n_bags, p.shape[1]):
        raise ValueError(
            f"lower and upper must have shape (n_bags, n_classes), got {low.shape} and {high.shape} for "
            f"probabilities of shape {p.shape}."
        )
    if index.shape != (len(p),) or set(np.unique(index).tolist()) != set(range(n_bags)):
        raise ValueError(
            f"bags must hold one index from 0 to {n_bags - 1} per patch, and every bag needs a patch."
        )
    sizes = np.bincount(index, minlength=n_bags)
    counts = np.zeros(low.shape)
    np.add.at(counts, (index, p.argmax(axis=1)), 1)
    distance = proportion_distance(counts / sizes[:, np.newaxis], low, high)
    middle = (low + high) / 2
    uncertainty = np.bincount(index, margin_uncertainty(p), n_bags) / sizes
    table = pd.DataFrame(
        {
            "outline": entropy_uncertainty(middle / middle.sum(axis=1, keepdims=True)),
            "reread": distance * (1 - uncertainty),
            "distance": distance,
            "uncertainty": uncertainty,
        },
        index=pd.Index(range(n_bags) if names is None else list(names), name="slide"),
    )
    for score in ("outline", "reread"):
        ranks = table[score].rank(ascending=False, method="first").astype(int)
        table[f"{score}_rank"] = ranks
    return table.sort_values("outline_rank")


def _gain(n, scores, n_more):
    """Gain predicted by the best-fitting power law; a is free, b at least 0."""
    best = (np.inf, 0.0)
    for exponent in EXPONENTS:
        power = -(n**-exponent)
        design = np.column_stack([np.ones_like(n), -np.ones_like(n), power])
        weights, misfit = nnls(design, scores)
        last = n[-1]
        gain = weights[2] * (last**-exponent - (last + n_more) ** -exponent)
        best = min(best, (round(misfit, 12), gain))
    return float(best[1])
