"""Losses, proportion error and number of pseudo labels over the rounds of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from proportion_ssl.displays._drawing import (
    HATCH,
    add_legend,
    check_classes,
    class_handles,
    class_palette,
    import_pyplot,
    panels,
    tinted,
)

LOSSES = {"train_loss": ("training", "black"), "valid_loss": ("validation", "#d55e00")}
N_MARKED = 30  # curves of at most this many rounds have markers


class LearningDisplay:
    """Losses, sum absolute error of the bags and number of pseudo labels by round.

    One panel for each of these that the history has. Labels are counted per class: positive labels filled
    above the line, negative labels hatched below it. It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    history : list of dict
        As ``history_`` of :class:`~proportion_ssl.NegativePseudoLabelClassifier`: ``round`` and any of
        ``train_loss``, ``valid_loss``, ``sum_absolute_error``, ``n_positive``, ``n_negative``; missing values
        are left out or None.
    classes : array-like of shape (n_classes,), optional
        Names of the counted classes; default: 0 to n_classes - 1.
    refit_history : dict, optional
        ``train_loss`` and ``valid_loss`` of the refit after the rounds; drawn as diamonds.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, shape (n_panels,)
    ax_ : matplotlib Axes
        The first of them.

    Raises
    ------
    TypeError
        If the history is not a list of dictionaries.
    ValueError
        If the history has nothing to draw, an entry has no round, or counts are not one per class.

    Notes
    -----
    The error and the labels of a round are computed with the weights at its start, its losses with the
    weights at its end. Round 0 is the supervised step.

    Examples
    --------
    >>> from proportion_ssl.displays import LearningDisplay
    >>> history = [{"round": 0, "train_loss": 0.9}, {"round": 1, "train_loss": 0.5}]
    >>> LearningDisplay(history).plot().ax_.get_ylabel()
    'loss'
    """

    def __init__(
        self,
        history: Sequence[Mapping],
        *,
        classes: Any = None,
        refit_history: Mapping | None = None,
    ):
        _check_history(history)
        self.history = history
        self.refit_history = refit_history
        self.rounds = np.array([entry["round"] for entry in history])
        self.losses = {name: _values(history, name) for name in LOSSES}
        self.sum_absolute_error = _values(history, "sum_absolute_error")
        self.counts = _counts(history)
        n_classes = 0 if self.counts is None else self.counts[1].shape[1]
        self.classes = (
            None if self.counts is None else check_classes(classes, n_classes, "n_positive")
        )
        if not self._shown():
            raise ValueError(
                "history has no losses, errors or counts to draw; its entries hold "
                f"{sorted({str(key) for entry in history for key in entry})}."
            )

    def plot(self, ax: Any = None, *, colors: Mapping | None = None) -> LearningDisplay:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, optional
            One for each panel, or one whose area is divided among them. Default: a new figure.
        colors : mapping of class to matplotlib color, optional
            Default: the colors of the paper's Figure 5 for its classes, distinct ones for others.

        Returns
        -------
        self : LearningDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the number of axes is wrong, or a color is invalid.
        """
        import_pyplot("LearningDisplay")
        palette = None if self.classes is None else class_palette(self.classes, colors)
        shown = self._shown()
        self.figure_, axes = panels(ax, len(shown), n_columns=3, size=(4.0, 3.2))
        draw = {
            "losses": self._draw_losses,
            "error": self._draw_error,
            "counts": lambda ax: self._draw_counts(ax, self.classes, palette),
        }
        for panel, name in zip(axes, shown, strict=True):
            draw[name](panel)
            panel.set_xlabel("round")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.spines[["top", "right"]].set_visible(False)
        self.axes_ = np.array(axes, dtype=object)
        self.ax_ = axes[0]
        return self

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, colors: Mapping | None = None, ax: Any = None
    ) -> LearningDisplay:
        """Draw the history of a fitted classifier.

        Parameters
        ----------
        estimator : NegativePseudoLabelClassifier
            Fitted.
        colors : mapping of class to matplotlib color, optional
            As in :meth:`plot`.
        ax : matplotlib Axes or array-like of Axes, optional
            As in :meth:`plot`.

        Returns
        -------
        display : LearningDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from proportion_ssl import NegativePseudoLabelClassifier
        >>> from proportion_ssl.datasets import make_bags
        >>> from proportion_ssl.displays import LearningDisplay
        >>> data = make_bags(n_bags=4, random_state=0)
        >>> clf = NegativePseudoLabelClassifier(max_epochs=3, random_state=0)
        >>> clf = clf.fit(data.X_labeled, data.y, data.bags)
        >>> [ax.get_ylabel() for ax in LearningDisplay.from_estimator(clf).axes_]
        ['loss', 'sum absolute error', 'labels']
        """
        check_is_fitted(estimator, "history_")
        display = cls(
            estimator.history_,
            classes=estimator.classes_,
            refit_history=getattr(estimator, "refit_history_", None),
        )
        return display.plot(ax, colors=colors)

    def _shown(self):
        panels = {
            "losses": any(np.isfinite(values).any() for values in self.losses.values()),
            "error": np.isfinite(self.sum_absolute_error).any(),
            "counts": self.counts is not None,
        }
        return [name for name, has_data in panels.items() if has_data]

    def _draw_losses(self, ax):
        for key, (label, color) in LOSSES.items():
            if not np.isfinite(self.losses[key]).any():
                continue
            self._draw_curve(ax, self.losses[key], color=color, label=label)
            refit = (self.refit_history or {}).get(key)
            if refit is not None:
                x = self.rounds[-1] + max(1.0, 0.05 * len(self.rounds))
                ax.plot(x, refit, "D", markersize=5, color=color, label=f"{label}, refit")
        ax.set(ylabel="loss", ylim=(0, None))
        ax.legend(frameon=False, fontsize="small")

    def _draw_error(self, ax):
        self._draw_curve(ax, self.sum_absolute_error, color="black", label="sum absolute error")
        ax.set(ylabel="sum absolute error", ylim=(0, None))
        ax.set_title("mean of the bags", fontsize="small")

    def _draw_curve(self, ax, values, **style):
        marker = "o" if len(self.rounds) <= N_MARKED else None
        ax.plot(self.rounds, values, marker=marker, markersize=3, linewidth=1.5, **style)

    def _draw_counts(self, ax, classes, palette):
        """Stacked bars, positive labels up, negative ones down."""
        rounds, positive, negative = self.counts
        top, bottom = np.zeros(len(rounds)), np.zeros(len(rounds))
        for c, (color, tint) in enumerate(zip(palette, tinted(palette), strict=True)):
            name = classes[c]
            ax.bar(rounds, positive[:, c], 1.0, top, color=color, linewidth=0, label=f"is {name}")
            bars = ax.bar(
                *(rounds, -negative[:, c], 1.0, bottom),
                facecolor=tint,
                edgecolor=color,
                linewidth=0,
                label=f"is not {name}",
            )
            for bar in bars:
                bar.set_hatch(HATCH)
            top, bottom = top + positive[:, c], bottom - negative[:, c]
        ax.axhline(0, color="black", linewidth=0.8)
        ax.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
        ax.set(ylabel="labels", xlim=(rounds[0] - 0.5, rounds[-1] + 0.5))
        ax.set_title("filled: is; hatched: is not", fontsize="small")
        add_legend(ax, class_handles(classes, palette))


def _check_history(history):
    if isinstance(history, Mapping | str) or not isinstance(history, Sequence):
        raise TypeError(
            f"history must be a list of dictionaries such as history_, got {type(history).__name__}."
        )
    if len(history) == 0:
        raise ValueError("history is empty; give one entry per round.")
    for i, entry in enumerate(history):
        if not isinstance(entry, Mapping):
            raise TypeError(f"history[{i}] must be a dictionary, got {type(entry).__name__}.")
        if "round" not in entry:
            raise ValueError(f"history[{i}] has no 'round', only {sorted(map(str, entry))}.")


def _values(history, key):
    """One float per entry, nan for missing values."""
    return np.array([np.nan if entry.get(key) is None else entry[key] for entry in history], float)


def _counts(history):
    """Rounds with counts, and the counts (n_rounds, n_classes) of positive and negative labels."""
    entries = [e for e in history if "n_positive" in e or "n_negative" in e]
    if not entries:
        return None
    n_classes = len(next(e.get("n_positive", e.get("n_negative")) for e in entries))
    counts = []
    for key in ("n_positive", "n_negative"):
        rows = [np.asarray(e.get(key, [0] * n_classes)) for e in entries]
        for entry, row in zip(entries, rows, strict=True):
            if row.shape != (n_classes,) or row.dtype.kind not in "iu" or (row < 0).any():
                raise ValueError(
                    f"{key} of round {entry['round']} is {entry[key]!r}; give one count for each of "
                    f"{n_classes} classes."
                )
        counts.append(np.stack(rows))
    return (np.array([e["round"] for e in entries]), *counts)
