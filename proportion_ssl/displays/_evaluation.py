"""Displays of agreement, calibration and abstention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from proportion_ssl.displays._drawing import (
    add_legend,
    check_classes,
    class_palette,
    import_pyplot,
    panels,
)
from proportion_ssl.evaluation import Reliability, RiskCoverage, reliability, risk_coverage
from proportion_ssl.evaluation._agreement import bland_altman, check_pairs


class BlandAltmanDisplay:
    """Differences of predicted and recorded proportions against their means, one panel per class.

    It is recommended to use :meth:`from_predictions`.

    Parameters
    ----------
    recorded, predicted : array-like or DataFrame of shape (n_bags, n_classes)
        Shares in [0, 1]. Rows with NaN in either are left out.
    classes : array-like of shape (n_classes,), optional
        Names. Default: columns of a DataFrame, or 0 to n_classes - 1.
    level : float in (0, 1), default=0.95
        Share of the differences within the limits of agreement.

    Attributes
    ----------
    lines : ndarray of shape (n_classes, 3)
        Lower limit, bias and upper limit of predicted minus recorded; limits are NaN for a single bag.
    figure_ : matplotlib Figure
    axes_ : list of n_classes matplotlib Axes

    Raises
    ------
    ValueError
        If shapes differ, a share lies outside [0, 1], or no row is complete.

    See Also
    --------
    proportion_ssl.evaluation.proportion_agreement : The same numbers as a table.

    Examples
    --------
    >>> display = BlandAltmanDisplay([[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.2, 0.8]])
    >>> display.lines[0].round(2)
    array([-0.38, -0.1 ,  0.18])
    """

    def __init__(self, recorded: Any, predicted: Any, *, classes: Any = None, level: float = 0.95):
        names = getattr(recorded, "columns", None) if classes is None else classes
        self.recorded, self.predicted = check_pairs(recorded, predicted)
        self.classes = check_classes(names, self.recorded.shape[1], "recorded")
        self.level = level
        pairs = zip(self.recorded.T, self.predicted.T, strict=True)
        self.lines = np.array([bland_altman(true, guess, level) for true, guess in pairs])

    @classmethod
    def from_predictions(
        cls,
        recorded: Any,
        predicted: Any,
        *,
        classes: Any = None,
        level: float = 0.95,
        ax: Any = None,
        colors: Mapping | None = None,
    ) -> BlandAltmanDisplay:
        """Draw given proportions.

        Parameters
        ----------
        recorded, predicted, classes, level
            As in the class.
        ax, colors
            As in :meth:`plot`.

        Returns
        -------
        display : BlandAltmanDisplay
        """
        return cls(recorded, predicted, classes=classes, level=level).plot(ax=ax, colors=colors)

    def plot(self, ax: Any = None, *, colors: Mapping | None = None) -> BlandAltmanDisplay:
        """Draw a panel per class.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of n_classes Axes, optional
            Default: a new figure.
        colors : mapping of class to color, optional

        Returns
        -------
        self : BlandAltmanDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot("BlandAltmanDisplay")
        palette = class_palette(self.classes, colors)
        self.figure_, self.axes_ = panels(ax, len(self.classes), n_columns=3, size=(2.9, 2.6))
        difference = self.predicted - self.recorded
        shown = np.nanmax(np.abs(np.append(difference, self.lines)))
        reach = max(1.15 * float(shown), 0.05)
        for c, (axes, color) in enumerate(zip(self.axes_, palette, strict=True)):
            mean = (self.recorded[:, c] + self.predicted[:, c]) / 2
            axes.scatter(
                mean, difference[:, c], s=22, color=[color], edgecolor="0.2", linewidth=0.6
            )
            axes.axhline(0, color="0.8", linewidth=1, zorder=0)
            for value, style in zip(self.lines[c], ("--", "-", "--"), strict=True):
                if np.isfinite(value):
                    axes.axhline(value, color="0.3", linewidth=1, linestyle=style, zorder=0)
                    axes.annotate(
                        f"{value:+.2f}",
                        (1, value),
                        xycoords=("axes fraction", "data"),
                        xytext=(-2, 2),
                        textcoords="offset points",
                        ha="right",
                        fontsize="x-small",
                    )
            axes.set(xlim=(-0.03, 1.03), ylim=(-reach, reach))
            axes.set_title(str(self.classes[c]), fontsize="medium")
            axes.set_xlabel("mean of recorded and predicted", fontsize="small")
            axes.set_ylabel("predicted - recorded", fontsize="small")
        return self


class ReliabilityDisplay:
    """Reliability diagram (accuracy against largest probability) with the number of patches below.

    It is recommended to use :meth:`from_predictions` or :meth:`from_estimator`.

    Parameters
    ----------
    reliability : Reliability
        Output of :func:`proportion_ssl.evaluation.reliability`.

    Attributes
    ----------
    reliability : Reliability
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        Diagram, numbers of patches.
    ax_ : matplotlib Axes
        The diagram.

    Examples
    --------
    >>> from proportion_ssl.evaluation import reliability
    >>> found = reliability([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.8, 0.2], [0.6, 0.4]])
    >>> round(ReliabilityDisplay(found).reliability.ece, 3)
    0.275
    """

    def __init__(self, reliability: Reliability):
        self.reliability = reliability

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        probabilities: Any,
        *,
        classes: Any = None,
        n_bins: int = 10,
        ax: Any = None,
        color: Any = None,
    ) -> ReliabilityDisplay:
        """Draw given probabilities, which should be of left-out slides.

        Parameters
        ----------
        y_true, probabilities, classes, n_bins
            As in :func:`proportion_ssl.evaluation.reliability`.
        ax, color
            As in :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
        """
        found = reliability(y_true, probabilities, classes=classes, n_bins=n_bins)
        return cls(found).plot(ax=ax, color=color)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, n_bins: int = 10, ax: Any = None, color: Any = None
    ) -> ReliabilityDisplay:
        """Predict instances that the estimator was not trained on, and draw.

        Parameters
        ----------
        estimator : fitted classifier
        X : array-like of shape (n_instances, ...)
        y : array-like of shape (n_instances,)
        n_bins : int, default=10
        ax, color
            As in :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
        """
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            classes=estimator.classes_,
            n_bins=n_bins,
            ax=ax,
            color=color,
        )

    def plot(self, ax: Any = None, *, color: Any = None) -> ReliabilityDisplay:
        """Draw the diagram and the numbers of patches.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of 2 Axes, optional
            Default: a new figure.
        color : matplotlib color, optional

        Returns
        -------
        self : ReliabilityDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot("ReliabilityDisplay")
        self.figure_, self.axes_ = panels(ax, 2, n_columns=1, size=(3.6, 2.6))
        self.ax_, counts = self.axes_
        bins = self.reliability.bins
        color = "C0" if color is None else color
        self.ax_.plot([0, 1], [0, 1], color="0.6", linewidth=1, zorder=0)
        self.ax_.plot(bins["confidence"], bins["accuracy"], marker="o", color=color)
        self.ax_.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
        self.ax_.set_title(f"calibration error {self.reliability.ece:.3f}", fontsize="medium")
        width = bins["high"] - bins["low"]
        counts.bar(bins["low"], bins["n"], width, align="edge", color=color, edgecolor="white")
        counts.set(xlim=(0, 1), xlabel="largest probability", ylabel="patches")
        return self


class RiskCoverageDisplay:
    """Risk-coverage curve: error rate against the share of patches kept when the least certain are dropped.

    It is recommended to use :meth:`from_predictions`.

    Parameters
    ----------
    curve : RiskCoverage
        Output of :func:`proportion_ssl.evaluation.risk_coverage`.
    name : str, optional
        Name in the legend.

    Attributes
    ----------
    curve : RiskCoverage
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    line_ : matplotlib Line2D

    Examples
    --------
    >>> from proportion_ssl.evaluation import risk_coverage
    >>> curve = risk_coverage([True, True, False, True], [0.1, 0.2, 0.9, 0.3])
    >>> RiskCoverageDisplay(curve).curve.area
    0.0625
    """

    def __init__(self, curve: RiskCoverage, *, name: str | None = None):
        self.curve = curve
        self.name = name

    @classmethod
    def from_predictions(
        cls, is_right: Any, uncertainty: Any, *, name: str | None = None, ax: Any = None
    ) -> RiskCoverageDisplay:
        """Draw given predictions.

        Parameters
        ----------
        is_right, uncertainty
            As in :func:`proportion_ssl.evaluation.risk_coverage`.
        name : str, optional
        ax
            As in :meth:`plot`.

        Returns
        -------
        display : RiskCoverageDisplay
        """
        return cls(risk_coverage(is_right, uncertainty), name=name).plot(ax=ax)

    def plot(self, ax: Any = None, **kwargs: Any) -> RiskCoverageDisplay:
        """Draw the curve; several may share axes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Default: a new figure.
        **kwargs : dict
            Options of matplotlib's ``plot``.

        Returns
        -------
        self : RiskCoverageDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        import_pyplot("RiskCoverageDisplay")
        self.figure_, axes = panels(ax, 1, n_columns=1, size=(3.6, 3.0))
        self.ax_ = axes[0]
        label = f"{self.name or 'area'} ({self.curve.area:.3f})"
        settings: dict[str, Any] = {"drawstyle": "steps-post", "label": label, **kwargs}
        (self.line_,) = self.ax_.plot(self.curve.coverage, self.curve.risk, **settings)
        top = max(0.01, *(line.get_ydata().max() for line in self.ax_.lines))
        self.ax_.set(
            xlim=(0, 1), ylim=(0, 1.1 * top), xlabel="share kept", ylabel="share of these wrong"
        )
        add_legend(self.ax_, self.ax_.get_lines())
        return self
