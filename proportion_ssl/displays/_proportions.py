"""Recorded against predicted proportions of bags, as bars and as points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from proportion_ssl._checks import check_shares
from proportion_ssl.displays._drawing import (
    add_legend,
    check_classes,
    check_ends,
    class_palette,
    import_pyplot,
    panels,
)
from proportion_ssl.proportions.intervals import nearest_proportions


class ProportionDisplay:
    """Recorded and predicted proportions of bags: stacked bars per bag, and a scatter with its error.

    It is recommended to use :meth:`from_predictions` or :meth:`from_estimator`.

    Parameters
    ----------
    recorded, predicted : array-like of shape (n_bags, n_classes)
        Shares in [0, 1]; rows sum to 1 within 0.01, except recorded rows with intervals.
    lower, upper : array-like of shape (n_bags, n_classes), optional
        Intervals of the recorded shares. Default: exact shares.
    classes : array-like of shape (n_classes,), optional
        Names; default: 0 to n_classes - 1.
    bag_names : array-like of shape (n_bags,), optional
        Default: 0 to n_bags - 1.

    Attributes
    ----------
    distance : ndarray of shape (n_bags,)
        Sum over the classes of the absolute differences from the nearest share in the interval, in [0, 2].
    class_error : ndarray of shape (n_classes,)
        Mean over the bags of the absolute difference from the nearest share in the interval, per class.
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        Bars, scatter.
    ax_ : matplotlib Axes
        The scatter, which has the legend.

    Raises
    ------
    ValueError
        If shapes differ, shares do not sum to 1, or intervals admit no such shares.

    Examples
    --------
    >>> display = ProportionDisplay.from_predictions([[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.2, 0.8]])
    >>> display.distance.round(2)
    array([0.4, 0. ])
    """

    def __init__(
        self,
        recorded: Any,
        predicted: Any,
        *,
        lower: Any = None,
        upper: Any = None,
        classes: Any = None,
        bag_names: Any = None,
    ):
        self.recorded = np.asarray(recorded, dtype=np.float64)
        self.predicted = np.asarray(predicted, dtype=np.float64)
        for name, shares in (("recorded", self.recorded), ("predicted", self.predicted)):
            if shares.ndim != 2 or shares.shape != self.recorded.shape or not len(shares):
                raise ValueError(
                    f"{name} has shape {shares.shape}, recorded {self.recorded.shape}; give one row per bag "
                    "and one column per class in both."
                )
        is_exact = lower is None and upper is None
        check_shares(self.recorded, "recorded shares", bags=bag_names, any_sum=not is_exact)
        check_shares(self.predicted, "predicted shares", bags=bag_names)
        self.lower, self.upper = check_ends(self.recorded, lower, upper, bag_names)
        self.classes = check_classes(classes, self.recorded.shape[1], "recorded")
        names = np.arange(len(self.recorded)) if bag_names is None else np.asarray(bag_names)
        if len(names) != len(self.recorded):
            raise ValueError(
                f"bag_names names {len(names)} bags but there are {len(self.recorded)}."
            )
        self.bag_names = names.tolist()
        nearest = nearest_proportions(self.predicted, self.lower, self.upper)
        difference = np.abs(nearest - self.predicted)
        self.distance, self.class_error = difference.sum(axis=1), difference.mean(axis=0)

    @classmethod
    def from_predictions(
        cls,
        recorded: Any,
        predicted: Any,
        *,
        lower: Any = None,
        upper: Any = None,
        classes: Any = None,
        bag_names: Any = None,
        ax: Any = None,
        colors: Mapping | None = None,
    ) -> ProportionDisplay:
        """Draw given proportions.

        Parameters
        ----------
        recorded, predicted, lower, upper, classes, bag_names
            As in the class.
        ax, colors
            As in :meth:`plot`.

        Returns
        -------
        display : ProportionDisplay
        """
        display = cls(
            recorded, predicted, lower=lower, upper=upper, classes=classes, bag_names=bag_names
        )
        return display.plot(ax=ax, colors=colors)

    @classmethod
    def from_estimator(
        cls, estimator: Any, bags: Any, *, ax: Any = None, colors: Mapping | None = None
    ) -> ProportionDisplay:
        """Predict the instances of bags, and draw the predicted proportions.

        Parameters
        ----------
        estimator : fitted classifier
        bags : Bags
            Bags with proportions.
        ax, colors
            As in :meth:`plot`.

        Returns
        -------
        display : ProportionDisplay

        Raises
        ------
        ValueError
            If the bags have no proportions.
        """
        if bags.proportions is None:
            raise ValueError("The bags have no proportions to compare with.")
        classes = np.asarray(estimator.classes_)
        recorded = bags.with_classes(classes)
        predicted = bags.proportions_of(estimator.predict(bags.X), classes)
        return cls.from_predictions(
            recorded.proportions,
            predicted,
            lower=recorded.lower,
            upper=recorded.upper,
            classes=classes,
            bag_names=bags.names,
            ax=ax,
            colors=colors,
        )

    def plot(self, ax: Any = None, *, colors: Mapping | None = None) -> ProportionDisplay:
        """Draw both panels.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of 2 Axes, optional
            Default: a new figure.
        colors : mapping of class to color, optional
            Default: the colors of the paper's Figure 5 where it names the class.

        Returns
        -------
        self : ProportionDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot("ProportionDisplay")
        from matplotlib.lines import Line2D

        palette = class_palette(self.classes, colors)
        n_bags = len(self.bag_names)
        size = (3.6, max(3.4, 0.32 * n_bags + 0.8))
        self.figure_, self.axes_ = panels(ax, 2, n_columns=2, size=size)
        bars, self.ax_ = self.axes_
        order = np.argsort(-self.distance, kind="stable")
        # the thin bar belongs to the thick one above it; keep pairs apart
        for shares, offset, thickness in (
            (self.recorded, -0.17, 0.38),
            (self.predicted, 0.13, 0.2),
        ):
            left = np.zeros(n_bags)
            for c, color in enumerate(palette):
                width = shares[order, c]
                rows = np.arange(n_bags) + offset
                bars.barh(rows, width, thickness, left=left, color=color, linewidth=0)
                left = left + width
        bars.set_yticks(np.arange(n_bags), [str(self.bag_names[i]) for i in order])
        widest = max(1.0, self.recorded.sum(axis=1).max())  # rounded shares may sum to more than 1
        bars.set(xlim=(0, widest), xlabel="share", ylim=(n_bags - 0.5, -0.5))
        bars.set_title(
            "recorded (thick) above predicted, largest distance first", fontsize="medium"
        )
        self.ax_.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=0)
        for c, color in enumerate(palette):
            if (self.upper > self.lower).any():
                ends = self.lower[:, c], self.upper[:, c]
                self.ax_.hlines(self.predicted[:, c], *ends, color=[color], linewidth=1, zorder=1)
            self.ax_.scatter(
                self.recorded[:, c],
                self.predicted[:, c],
                s=28,
                color=[color],
                edgecolor="0.2",
                linewidth=0.6,
            )
        self.ax_.set(
            xlim=(-0.03, 1.03),
            ylim=(-0.03, 1.03),
            xlabel="recorded",
            ylabel="predicted",
            aspect="equal",
        )
        self.ax_.set_title(f"mean distance {self.distance.mean():.2f}", fontsize="medium")
        point: dict[str, Any] = {"marker": "o", "linestyle": "none", "markeredgecolor": "0.2"}
        add_legend(
            self.ax_,
            [
                Line2D([], [], color=color, label=f"{name} ({error:.2f})", **point)
                for name, color, error in zip(self.classes, palette, self.class_error, strict=True)
            ],
        )
        return self
