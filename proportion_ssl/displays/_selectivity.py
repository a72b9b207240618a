"""Recorded, predicted and selected shares of one bag, as in the paper's Figure 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from proportion_ssl._checks import check_shares
from proportion_ssl.displays._drawing import (
    HATCH,
    add_legend,
    check_classes,
    check_ends,
    class_palette,
    import_pyplot,
    panels,
    sign_handles,
    tinted,
)
from proportion_ssl.proportions.counts import class_proportions, sum_absolute_error
from proportion_ssl.proportions.intervals import nearest_proportions
from proportion_ssl.pseudo_labels.selectivity import negative_selectivity, positive_selectivity

WIDTH = 0.38  # width of a bar; the distance of classes is 1


class SelectivityDisplay:
    """Recorded and predicted shares of one bag, with the shares that receive pseudo labels.

    Two bars per class. The right bar shows the instances predicted as the class, the most confident at the
    bottom: the filled part gets a positive label (PS), the hatched part at the top a negative label (NS). It
    is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    true_proportions, predicted_proportions : array-like of shape (n_classes,)
        Recorded and predicted shares of the bag, in [0, 1], each summing to 1 within 0.01, except recorded
        shares with intervals.
    lower, upper : array-like of shape (n_classes,), optional
        Intervals of the recorded shares. Default: exact shares. Selection uses the share in the interval that
        is nearest to the predicted one, as selectors do.
    classes : array-like of shape (n_classes,), optional
        Names; default: 0 to n_classes - 1.

    Attributes
    ----------
    positive_selectivity, negative_selectivity : ndarray of shape (n_classes,)
        Shares of the bag, by :func:`~proportion_ssl.pseudo_labels.positive_selectivity` and
        :func:`~proportion_ssl.pseudo_labels.negative_selectivity`.
    sum_absolute_error : float
        In [0, 1], by :func:`~proportion_ssl.proportions.sum_absolute_error`.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Raises
    ------
    ValueError
        If the shares are not those of one bag.

    See Also
    --------
    PseudoLabelDisplay : The instances themselves, with their labels.

    Notes
    -----
    Equations (1), (2) and (5) of [1]_. The hatched and filled parts never overlap, since PS + NS is at most
    the predicted share.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    The bag of the paper's Figure 4.

    >>> from proportion_ssl.displays import SelectivityDisplay
    >>> display = SelectivityDisplay.from_predictions(
    ...     [0.05, 0.70, 0.15, 0.00, 0.10], [0.07, 0.64, 0.14, 0.00, 0.14]
    ... )
    >>> display.positive_selectivity.round(4).tolist()
    [0.0435, 0.5568, 0.1218, 0.0, 0.087]
    """

    def __init__(
        self,
        true_proportions: Any,
        predicted_proportions: Any,
        *,
        lower: Any = None,
        upper: Any = None,
        classes: Any = None,
    ):
        is_exact = lower is None and upper is None
        self.true_proportions = _check_shares(
            true_proportions, "true_proportions", any_sum=not is_exact
        )
        self.predicted_proportions = _check_shares(predicted_proportions, "predicted_proportions")
        n_classes = len(self.true_proportions)
        if len(self.predicted_proportions) != n_classes:
            raise ValueError(
                f"predicted_proportions has {len(self.predicted_proportions)} classes but "
                f"true_proportions has {n_classes}."
            )
        self.classes = check_classes(classes, n_classes, "true_proportions")
        true = self.true_proportions[np.newaxis]
        if not is_exact:
            lower, upper = (None if end is None else [end] for end in (lower, upper))
        ends = check_ends(true, lower, upper)
        predicted = self.predicted_proportions[np.newaxis]
        shares = nearest_proportions(predicted, *ends), predicted
        self.sum_absolute_error = float(sum_absolute_error(*shares)[0])
        self.positive_selectivity = positive_selectivity(*shares)[0]
        self.negative_selectivity = negative_selectivity(*shares)[0]

    def plot(self, ax: Any = None, *, colors: Mapping | None = None) -> SelectivityDisplay:
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Default: a new figure.
        colors : mapping of class to matplotlib color, optional
            Default: the colors of the paper's Figure 5 for its classes, distinct ones for others.

        Returns
        -------
        self : SelectivityDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a color is invalid.
        """
        import_pyplot("SelectivityDisplay")
        palette = class_palette(self.classes, colors)
        n_classes = len(self.classes)
        size = (max(4.0, 1.25 * n_classes), 3.8)
        self.figure_, (self.ax_,) = panels(ax, 1, n_columns=1, size=size)
        ax = self.ax_
        left, right = np.arange(n_classes) - WIDTH / 2, np.arange(n_classes) + WIDTH / 2
        true, predicted = self.true_proportions, self.predicted_proportions
        positive, negative = self.positive_selectivity, self.negative_selectivity
        ax.bar(left, true, WIDTH, color="0.78", label="recorded", zorder=2)
        ax.bar(right, positive, WIDTH, color=palette, label="positive", zorder=2)
        hatched = ax.bar(
            *(right, negative, WIDTH, predicted - negative),
            facecolor=tinted(palette),
            edgecolor=palette,
            linewidth=0,
            label="negative",
            zorder=2,
        )
        for bar in hatched:
            bar.set_hatch(HATCH)
        ax.bar(
            *(right, predicted, WIDTH),
            facecolor="none",
            edgecolor="0.25",
            linewidth=1.0,
            label="predicted",
            zorder=3,
        )
        for x, share in zip([*left, *right], [*true, *predicted], strict=True):
            ax.annotate(
                _percent(share),
                *((x, share), (0, 2)),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize="x-small",
            )
        ax.set_xticks(np.arange(n_classes), [self._tick(c) for c in range(n_classes)])
        ax.tick_params(axis="x", length=0)
        highest = max(true.max(), predicted.max())
        ax.set(xlim=(-0.6, n_classes - 0.4), ylim=(0, 1.12 * highest), ylabel="share of the bag")
        ax.yaxis.set_major_formatter(lambda share, _: _percent(share))
        ax.set_title(f"sum absolute error {self.sum_absolute_error:.2f}", fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
        self._draw_legend(ax)
        return self

    def _tick(self, c):
        """Label of a class with its selected shares."""
        positive = _percent(self.positive_selectivity[c], digits=1)
        negative = _percent(self.negative_selectivity[c], digits=1)
        return f"{self.classes[c]}\nPS {positive}\nNS {negative}"

    @staticmethod
    def _draw_legend(ax):
        from matplotlib.patches import Patch

        add_legend(
            ax,
            [
                Patch(facecolor="0.78", label="recorded"),
                Patch(facecolor="none", edgecolor="0.25", label="predicted, of these"),
                *sign_handles("labeled positive (PS)", "labeled negative (NS)"),
            ],
        )

    @classmethod
    def from_predictions(
        cls,
        true_proportions: Any,
        predicted_proportions: Any,
        *,
        lower: Any = None,
        upper: Any = None,
        classes: Any = None,
        colors: Mapping | None = None,
        ax: Any = None,
    ) -> SelectivityDisplay:
        """Draw the shares of one bag.

        Parameters
        ----------
        true_proportions, predicted_proportions : array-like of shape (n_classes,)
            Recorded and predicted shares of the bag, in [0, 1], each summing to 1 within 0.01, except
            recorded shares with intervals.
        lower, upper : array-like of shape (n_classes,), optional
            Intervals of the recorded shares. Default: exact shares.
        classes : array-like of shape (n_classes,), optional
            Names.
        colors : mapping of class to matplotlib color, optional
            As in :meth:`plot`.
        ax : matplotlib Axes, optional
            As in :meth:`plot`.

        Returns
        -------
        display : SelectivityDisplay
        """
        display = cls(
            true_proportions, predicted_proportions, lower=lower, upper=upper, classes=classes
        )
        return display.plot(ax, colors=colors)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        true_proportions: Any,
        *,
        lower: Any = None,
        upper: Any = None,
        colors: Mapping | None = None,
        ax: Any = None,
    ) -> SelectivityDisplay:
        """Predict the instances of one bag and draw the shares.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``classes_``.
        X : array-like of shape (n_instances, ...)
            Instances of the bag.
        true_proportions : array-like of shape (n_classes,)
            Recorded shares, in the order of ``estimator.classes_``.
        lower, upper : array-like of shape (n_classes,), optional
            Intervals of the recorded shares. Default: exact shares.
        colors : mapping of class to matplotlib color, optional
            As in :meth:`plot`.
        ax : matplotlib Axes, optional
            As in :meth:`plot`.

        Returns
        -------
        display : SelectivityDisplay

        Examples
        --------
        >>> from sklearn.dummy import DummyClassifier
        >>> from proportion_ssl.displays import SelectivityDisplay
        >>> clf = DummyClassifier().fit([[0], [0], [0]], ["acinar", "acinar", "solid"])
        >>> display = SelectivityDisplay.from_estimator(clf, [[0], [0]], [0.75, 0.25])
        >>> display.predicted_proportions
        array([1., 0.])
        """
        classes = np.asarray(estimator.classes_).tolist()
        lookup = {name: code for code, name in enumerate(classes)}
        labels = np.array([lookup[name] for name in np.asarray(estimator.predict(X)).tolist()])
        predicted = class_proportions(
            labels, np.zeros(len(labels), dtype=np.int64), n_bags=1, n_classes=len(classes)
        )[0]
        display = cls(true_proportions, predicted, lower=lower, upper=upper, classes=classes)
        return display.plot(ax, colors=colors)


def _percent(share, digits=0):
    return f"{100 * share:.{digits}f}%"


def _check_shares(shares, name, any_sum=False):
    shares = np.asarray(shares, dtype=np.float64)
    if shares.ndim != 1 or len(shares) < 1:
        raise ValueError(
            f"{name} has shape {shares.shape}; give the shares of one bag, (n_classes,)."
        )
    check_shares(shares, name, any_sum=any_sum)
    return shares
