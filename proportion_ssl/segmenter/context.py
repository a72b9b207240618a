"""Patches have places: class probabilities smoothed over neighboring patches of a slide."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.special import softmax

from proportion_ssl.evaluation import confusion_scores, slide_confusions
from proportion_ssl.pseudo_labels.exact_assignment import sinkhorn

#: Weights that :func:`choose_weight` compares.
WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5)


def smooth_probabilities(
    cells: Any,
    probabilities: Any,
    weight: float,
    *,
    slide_ids: Any = None,
    step: int = 1,
    keep_shares: bool = False,
    tol: float = 1e-4,
    max_iter: int = 100,
) -> np.ndarray:
    """Class probabilities of patches, given those of the eight patches around each.

    Parameters
    ----------
    cells : array-like of int, shape (n_patches, 2)
        Row and column of each patch in the grid of its slide, as ``PatchGrid.cells``. Patches may be missing.
    probabilities : array-like of shape (n_patches, n_classes)
        Of any classifier that looks at one patch at a time. Rows sum to 1.
    weight : float
        At least 0. By how much the log-probability of a class rises for each neighbor of that class. 0: the
        probabilities stay what they are.
    slide_ids : array-like of shape (n_patches,), optional
        Slide of each patch; patches of different slides are no neighbors. Default: all are of one slide.
    step : int, default=1
        Neighbors are this many cells apart: the cells along the side of a window, where windows overlap or
        the map is finer than they are. Nearer cells see the same tissue and say nothing new of it; this way
        a weight means the same on every map.
    keep_shares : bool, default=False
        Whether the mean probability of each class over each slide stays what it is. For probabilities that
        already follow the recorded proportions of the slide, such as the labels of
        :class:`~proportion_ssl.SoftAssignmentSelector`: neighbors then say where the classes are, and the
        record goes on to say how much of each there is.
    tol : float, default=1e-4
        Ends when no probability changes by more than this in a turn.
    max_iter : int, default=100
        Most turns.

    Returns
    -------
    smoothed : ndarray of float64, shape (n_patches, n_classes)
        Rows sum to 1. If no patch of a slide has neighbors, all keep their probabilities.

    Raises
    ------
    ValueError
        When shapes do not fit together, two patches of a slide are in one cell, or the weight is negative or
        not finite, or `step` is below 1.

    Notes
    -----
    The labels y of a slide have the energy of a Potts model [1]_,

    ``E(y) = -sum_i log f_i(y_i) - weight * (number of neighbors with equal labels)``,

    and its distribution ``exp(-E)`` is approximated by independent patches, the mean field,
    ``q_ic ~ f_ic exp(weight * sum_j q_jc)``, j the neighbors of i. Patches are renewed in four groups without
    neighbors within a group, so that every step raises the lower bound of the log-likelihood,
    ``sum_i sum_c q_ic (log f_ic - log q_ic) + weight * sum_ij sum_c q_ic q_jc``.

    With ``keep_shares`` the bound is raised among the q with these means. All patches are renewed at once:
    what the neighbors make of the probabilities goes through
    ``proportion_ssl.pseudo_labels.exact_assignment.sinkhorn``, and half way to the result.

    References
    ----------
    .. [1] Kraehenbuehl, Koltun. "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials".
       NeurIPS 2011.

    Examples
    --------
    >>> import numpy as np
    >>> row = np.array([[0, 0], [0, 1], [0, 2]])
    >>> probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]])
    >>> smooth_probabilities(row, probabilities, 1.0).round(2)
    array([[0.94, 0.06],
           [0.8 , 0.2 ],
           [0.94, 0.06]])
    """
    cells, probabilities, slides = _check(cells, probabilities, slide_ids)
    if not (np.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight is {weight}; give a number of at least 0.")
    if step < 1:
        raise ValueError(f"step is {step}; neighbors are at least 1 cell apart.")
    if weight == 0 or not len(cells):
        return probabilities.copy()
    cells, slides = _apart(cells, slides, step)
    turns = _turns_with_shares if keep_shares else _turns
    smoothed = probabilities
    for turn in turns(cells, probabilities, weight, slides):
        change, smoothed = np.abs(turn - smoothed).max(), turn
        max_iter -= 1
        if change <= tol or max_iter <= 0:
            break
    return smoothed


def choose_weight(
    cells: Any,
    probabilities: Any,
    y: Any,
    slide_ids: Any,
    *,
    classes: Sequence[Any],
    groups: Any = None,
    keep_shares: bool = False,
    weights: Sequence[float] = WEIGHTS,
) -> float:
    """Weight of the neighbors that is best on outlined slides, if it is clearly better than none.

    Parameters
    ----------
    cells : array-like of int, shape (n_patches, 2)
    probabilities : array-like of shape (n_patches, n_classes)
        Of classifiers that did *not* learn from the slide of the patch, as a cross-validation by slide gives
        them: of slides that were learned from they are too sure, and the weight would be too small.
    y : array-like of shape (n_patches,)
        Class of each patch; None or NaN for patches without one, which are smoothed with the others and
        not scored.
    slide_ids : array-like of shape (n_patches,)
    classes : sequence of n_classes
        Class of each column of ``probabilities``.
    groups : array-like of shape (n_patches,), optional
        Case of each patch, where a case has several slides. Default: ``slide_ids``.
    keep_shares : bool, default=False
        As in :func:`smooth_probabilities`: for probabilities that follow the proportions of these slides.
    weights : sequence of float
        What is compared.

    Returns
    -------
    weight : float
        That of the largest mean IoU over all labeled patches, the smallest of equally good ones. The
        smallest of all weights, if the gain over it is within one standard error, a jackknife over the
        groups, or if only one group has labels.

    Raises
    ------
    ValueError
        As :func:`smooth_probabilities`; when no patch has a label, or one that ``classes`` does not name.

    Examples
    --------
    >>> import numpy as np
    >>> cells, slides = np.tile([[0, 0], [0, 1], [0, 2]], (2, 1)), ["s1"] * 3 + ["s2"] * 3
    >>> probabilities = [[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]] * 2
    >>> choose_weight(cells, probabilities, ["a"] * 6, slides, classes=["a", "b"])
    0.4
    """
    cells, probabilities, slides = _check(cells, probabilities, slide_ids)
    y = np.asarray(y, dtype=object)
    if y.shape != (len(cells),) or len(classes) != probabilities.shape[1]:
        raise ValueError(
            f"y has shape {y.shape} and there are {len(classes)} classes; {len(cells)} patches with "
            f"{probabilities.shape[1]} columns of probabilities need one label each and one class per column."
        )
    labeled = ~pd.isna(y)
    codes = {name: code for code, name in enumerate(classes)}
    unknown = [value for value in y[labeled].tolist() if value not in codes]
    if unknown or not labeled.any():
        what = (
            f"holds {unknown[0]!r}, which is not among the classes" if unknown else "has no label"
        )
        raise ValueError(f"y {what}; give outlined slides, with classes {list(classes)}.")
    true = np.array([codes[value] for value in y[labeled].tolist()])
    cases = slides if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(cases) != len(y):
        raise ValueError(f"groups has {len(cases)} values for {len(y)} patches.")
    ordered = sorted(weights)
    tables = []
    for weight in ordered:
        smoothed = smooth_probabilities(
            cells, probabilities, weight, slide_ids=slides, keep_shares=keep_shares
        )
        found = smoothed[labeled].argmax(axis=1)
        tables.append(slide_confusions(true, found, cases[labeled], range(len(classes)))[0])
    return float(ordered[clearly_best(np.stack(tables), len(classes))])


def clearly_best(confusions: np.ndarray, n_classes: int) -> int:
    """Which of several predictions has the best mean IoU; the first unless another is clearly better.

    Parameters
    ----------
    confusions : ndarray of shape (n_predictions, n_groups, n_rows, n_columns)
        Confusion matrices by prediction and group.
    n_classes : int
        Rows and columns that are scored, from the first.

    Returns
    -------
    best : int
        0 unless the gain over the first exceeds its standard error, ``(n - 1) / n`` times the sum of squares
        of the gains without one group in turn about their mean, its root.
    """
    has_labels = confusions.sum(axis=(0, 2, 3)) > 0
    confusions = confusions[:, has_labels]
    n = confusions.shape[1]
    total = confusions.sum(axis=1)
    scores = confusion_scores(total, n_classes)["mIoU"]
    best = int(np.nanargmax(scores)) if np.isfinite(scores).any() else 0
    if best == 0 or n < 2:
        return 0
    without = confusion_scores(total[[0, best], np.newaxis] - confusions[[0, best]], n_classes)
    gains = without["mIoU"][1] - without["mIoU"][0]
    error = np.sqrt((n - 1) / n * ((gains - gains.mean()) ** 2).sum())
    return best if scores[best] - scores[0] > error else 0


def _check(cells, probabilities, slide_ids):
    """Cells, probabilities and codes of the slides, of the same length."""
    cells = np.asarray(cells)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if cells.ndim != 2 or cells.shape[1] != 2 or probabilities.ndim != 2:
        raise ValueError(
            f"cells has shape {cells.shape} and probabilities {probabilities.shape}; give row and column, "
            "and one probability per class, of each patch."
        )
    names = np.zeros(len(cells)) if slide_ids is None else np.asarray(slide_ids)
    if not len(cells) == len(probabilities) == len(names):
        raise ValueError(
            f"There are {len(cells)} cells, {len(probabilities)} rows of probabilities and {len(names)} "
            "slide ids; give one of each per patch."
        )
    if not np.issubdtype(cells.dtype, np.integer):
        raise ValueError(
            f"cells are {cells.dtype}; give whole numbers, row and column in the grid."
        )
    _, slides = np.unique(names, return_inverse=True)
    return cells, probabilities, slides


def _apart(cells: np.ndarray, slides: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells and slides so that those `step` cells apart touch: a slide for each of step x step shifts."""
    if step == 1:
        return cells, slides
    shift = cells % step
    _, apart = np.unique((slides * step + shift[:, 0]) * step + shift[:, 1], return_inverse=True)
    return cells // step, apart


def _neighbors(cells: np.ndarray, slides: np.ndarray) -> csr_array:
    """Which patches touch by a side or a corner: a symmetric matrix of zeros and ones."""
    n = len(cells)
    place = (cells - cells.min(axis=0, initial=0) + 1).astype(np.int64)
    height, width = place.max(axis=0, initial=0) + 2
    keys = (slides * height + place[:, 0]) * width + place[:, 1]
    order = np.argsort(keys)
    ordered = keys[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        row, column = cells[order[twice[0]]].tolist()
        raise ValueError(
            f"Two patches of a slide are in row {row}, column {column}. Average the probabilities of windows "
            "that overlap first, and name the slides by slide_ids."
        )
    pairs = []
    for step in (
        1,
        width - 1,
        width,
        width + 1,
    ):  # the other four are these, seen from the other side
        found = np.searchsorted(ordered, keys + step)
        found[found == n] = 0
        is_there = ordered[found] == keys + step
        pairs.append((np.flatnonzero(is_there), order[found[is_there]]))
    one, other = (np.concatenate(part) for part in zip(*pairs, strict=True))
    rows, columns = np.concatenate([one, other]), np.concatenate([other, one])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))


def _turns(cells, probabilities, weight, slides) -> Iterator[np.ndarray]:
    """Probabilities after each turn of the mean field, in which every patch is renewed once."""
    neighbors = _neighbors(cells, slides)
    with np.errstate(divide="ignore"):  # what is impossible stays so
        log_f = np.log(probabilities)
    color = 2 * (cells[:, 0] % 2) + cells[:, 1] % 2
    groups = [np.flatnonzero(color == c) for c in range(4)]
    parts = [(rows, neighbors[rows], log_f[rows]) for rows in groups if len(rows)]
    q = probabilities.copy()
    while True:
        for rows, around, own in parts:
            q[rows] = softmax(own + weight * (around @ q), axis=1)
        yield q.copy()


def _turns_with_shares(cells, probabilities, weight, slides) -> Iterator[np.ndarray]:
    """As :func:`_turns`, but every turn leaves the mean probabilities of each slide as they are."""
    neighbors = _neighbors(cells, slides)
    sums = np.zeros((slides.max() + 1, probabilities.shape[1]))
    np.add.at(sums, slides, probabilities)
    shares = sums / np.bincount(slides)[:, np.newaxis]
    log_f = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    q = probabilities
    while True:
        renewed, _ = sinkhorn(log_f + weight * (neighbors @ q), slides, shares, shares)
        q = (q + renewed) / 2
        yield q
