"""Smooth class probabilities over neighboring patches of a slide."""

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
    """Smooth the class probabilities of patches over their eight neighbors.

    Parameters
    ----------
    cells : array-like of int, shape (n_patches, 2)
        Row and column of each patch in the grid of its slide, as ``PatchGrid.cells``. Patches may be missing.
    probabilities : array-like of shape (n_patches, n_classes)
        Probabilities from a classifier that sees one patch at a time. Rows sum to 1.
    weight : float
        Increase of the log-probability of a class for each neighbor of that class, at least 0. 0 leaves the
        probabilities unchanged.
    slide_ids : array-like of shape (n_patches,), optional
        Slide of each patch; patches of different slides are not neighbors. Default: one slide.
    step : int, default=1
        Distance of neighbors in cells. Where windows overlap or the map is finer than the windows: the number
        of cells along the side of a window. Nearer cells see the same tissue and add no information; with
        this step a weight has the same meaning on every map.
    keep_shares : bool, default=False
        Whether to preserve the mean probability of each class in each slide. For probabilities that already
        follow the recorded proportions of the slide, such as the labels of
        :class:`~proportion_ssl.SoftAssignmentSelector`: neighbors then determine where the classes are, and
        the record how much of each there is.
    tol : float, default=1e-4
        Iteration stops when no probability changes by more than this.
    max_iter : int, default=100
        Largest number of iterations.

    Returns
    -------
    smoothed : ndarray of float64, shape (n_patches, n_classes)
        Rows sum to 1. Unchanged in slides where no patch has neighbors.

    Raises
    ------
    ValueError
        If shapes do not match, two patches of a slide share a cell, the weight is negative or not finite, or
        `step` is below 1.

    Notes
    -----
    The labels y of a slide follow a Potts model [1]_ with energy

    ``E(y) = -sum_i log f_i(y_i) - weight * (number of neighbors with equal labels)``,

    The distribution ``exp(-E)`` is approximated by independent patches (mean field),
    ``q_ic ~ f_ic exp(weight * sum_j q_jc)``, where j runs over the neighbors of i. Patches are updated in
    four groups without neighbors within a group, so that every step increases the lower bound of the
    log-likelihood, ``sum_i sum_c q_ic (log f_ic - log q_ic) + weight * sum_ij sum_c q_ic q_jc``.

    With ``keep_shares`` the bound is maximized over the q with the given means. All patches are updated at
    once: the mean-field update is projected with ``proportion_ssl.pseudo_labels.exact_assignment.sinkhorn``,
    and the step goes half of the way to the result.

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
    """Choose the weight of neighbors with the best mean IoU on outlined slides.

    Parameters
    ----------
    cells : array-like of int, shape (n_patches, 2)
    probabilities : array-like of shape (n_patches, n_classes)
        Probabilities from classifiers that were *not* trained on the slide of the patch, such as those of a
        cross-validation by slide. On training slides they are overconfident, and the weight would be too
        small.
    y : array-like of shape (n_patches,)
        Class of each patch; None or NaN for patches without a label, which are smoothed but not scored.
    slide_ids : array-like of shape (n_patches,)
    classes : sequence of n_classes
        Class of each column of ``probabilities``.
    groups : array-like of shape (n_patches,), optional
        Case of each patch, where a case has several slides. Default: ``slide_ids``.
    keep_shares : bool, default=False
        As in :func:`smooth_probabilities`: for probabilities that follow the proportions of these slides.
    weights : sequence of float
        Candidates.

    Returns
    -------
    weight : float
        The candidate with the largest mean IoU over all labeled patches; the smallest in case of ties. The
        smallest candidate if the gain over it is within one standard error (jackknife over groups), or if
        only one group has labels.

    Raises
    ------
    ValueError
        As in :func:`smooth_probabilities`; also if no patch has a label, or a label is not in ``classes``.

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
            f"{probabilities.shape[1]} columns of probabilities need one label per patch and one class each."
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
    """Index of the prediction with the best mean IoU; 0 unless another is clearly better.

    Parameters
    ----------
    confusions : ndarray of shape (n_predictions, n_groups, n_rows, n_columns)
        Confusion matrices by prediction and group.
    n_classes : int
        Number of rows and columns that are scored, counted from the first.

    Returns
    -------
    best : int
        0 unless the gain over the first exceeds its jackknife standard error,
        ``sqrt((n - 1) / n * sum_i (gain_i - mean(gain))^2)`` with ``gain_i`` the gain without group i of n.
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
    """Cells and slides in which cells `step` apart become adjacent: one slide per shift (step x step)."""
    if step == 1:
        return cells, slides
    shift = cells % step
    _, apart = np.unique((slides * step + shift[:, 0]) * step + shift[:, 1], return_inverse=True)
    return cells // step, apart


def _neighbors(cells: np.ndarray, slides: np.ndarray) -> csr_array:
    """Adjacency matrix of patches that share a side or a corner, symmetric, of zeros and ones."""
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
            "that overlap first, or pass slide_ids if the patches are from several slides."
        )
    pairs = []
    for step in (
        1,
        width - 1,
        width,
        width + 1,
    ):  # the other four follow by symmetry
        found = np.searchsorted(ordered, keys + step)
        found[found == n] = 0
        is_there = ordered[found] == keys + step
        pairs.append((np.flatnonzero(is_there), order[found[is_there]]))
    one, other = (np.concatenate(part) for part in zip(*pairs, strict=True))
    rows, columns = np.concatenate([one, other]), np.concatenate([other, one])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))


def _turns(cells, probabilities, weight, slides) -> Iterator[np.ndarray]:
    """Probabilities after each mean-field iteration, which updates every patch once."""
    neighbors = _neighbors(cells, slides)
    with np.errstate(divide="ignore"):  # probabilities of 0 stay 0
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
    """As :func:`_turns`, with the mean probabilities of each slide preserved."""
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
