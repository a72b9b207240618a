"""True and predicted label maps of a slide, for one or several systems, as in Figures 5 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from proportion_ssl.displays._drawing import (
    add_legend,
    check_classes,
    class_handles,
    class_palette,
    import_pyplot,
    panels,
)

#: Palette of Okabe and Ito, distinguishable with any type of color vision.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000")
#: Lengths of a scale bar, in micrometers.
BAR_LENGTHS = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)


class SegmentationDisplay:
    """Label maps of a slide: truth and the predictions of one or several systems, side by side.

    It is recommended to use :meth:`from_predictions` or :meth:`from_estimator`.

    Parameters
    ----------
    maps : mapping of str to array-like of int, shape (n_rows, n_columns)
        Title and label map of each panel: class indices, -1: no patch (see
        :func:`proportion_ssl.slides.stitch`). All have the same shape.
    classes : array-like of shape (n_classes,)
        Class names, in the order of the indices.
    thumbnail : ndarray of shape (height, width, 3), uint8, optional
        Image of the slide; shown as the first panel and beneath the maps.
    cell_pixels : float, optional
        Side of a patch in pixels of the thumbnail, both with the origin in the upper left corner. Default:
        the maps cover the thumbnail. Without a thumbnail a patch is one unit wide.
    patch_um : float, optional
        Side of a patch in micrometers (224 pixels at 10x: 224); draws a scale bar.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One per panel.
    ax_ : matplotlib Axes
        The last panel, which has the legend.
    scale_bar_um_ : float or None
        Length of the scale bar, in micrometers.

    Raises
    ------
    ValueError
        If maps differ in shape or have an index without a class.

    Examples
    --------
    >>> truth, prediction = [[0, 0, 1], [0, -1, 1]], [[0, 1, 1], [0, -1, 1]]
    >>> display = SegmentationDisplay.from_predictions(truth, prediction, classes=["acinar", "solid"])
    >>> [ax.get_title() for ax in display.axes_]
    ['truth', 'prediction']
    """

    def __init__(
        self,
        maps: Mapping[str, Any],
        classes: Any,
        *,
        thumbnail: np.ndarray | None = None,
        cell_pixels: float | None = None,
        patch_um: float | None = None,
    ):
        self.maps = {str(title): np.asarray(values) for title, values in maps.items()}
        self.classes = check_classes(classes, len(np.asarray(classes)), "classes")
        self.thumbnail = thumbnail
        self.cell_pixels = cell_pixels
        self.patch_um = patch_um
        if not self.maps:
            raise ValueError("maps is empty; give at least one label map.")
        shape = next(iter(self.maps.values())).shape
        for title, values in self.maps.items():
            if values.ndim != 2 or values.dtype.kind not in "iu" or values.shape != shape:
                raise ValueError(
                    f"The map {title!r} has shape {values.shape} and type {values.dtype}; give class indices "
                    f"of shape (n_rows, n_columns), all maps alike (the first has {shape})."
                )
            if values.min() < -1 or values.max() >= len(self.classes):
                raise ValueError(
                    f"The map {title!r} holds indices {values.min()} to {values.max()}, but there are "
                    f"{len(self.classes)} classes; give 0 to {len(self.classes) - 1}, or -1 for no patch."
                )

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        classes: Any,
        thumbnail: np.ndarray | None = None,
        cell_pixels: float | None = None,
        patch_um: float | None = None,
        ax: Any = None,
        colors: Mapping | str | None = None,
        alpha: float = 0.6,
    ) -> SegmentationDisplay:
        """Draw truth and predictions.

        Parameters
        ----------
        y_true : array-like of int, shape (n_rows, n_columns), or None
            True label map; None: unknown.
        y_pred : array-like of int, shape (n_rows, n_columns), or mapping of str to such
            Predicted label map, or one per system by name.
        classes, thumbnail, cell_pixels, patch_um
            As in the class.
        ax, colors, alpha
            As in :meth:`plot`.

        Returns
        -------
        display : SegmentationDisplay
        """
        predictions = dict(y_pred) if isinstance(y_pred, Mapping) else {"prediction": y_pred}
        maps = predictions if y_true is None else {"truth": y_true, **predictions}
        display = cls(
            maps, classes, thumbnail=thumbnail, cell_pixels=cell_pixels, patch_um=patch_um
        )
        return display.plot(ax=ax, colors=colors, alpha=alpha)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        cells: Any,
        shape: tuple[int, int],
        *,
        y: Any = None,
        thumbnail: np.ndarray | None = None,
        cell_pixels: float | None = None,
        patch_um: float | None = None,
        ax: Any = None,
        colors: Mapping | str | None = None,
        alpha: float = 0.6,
    ) -> SegmentationDisplay:
        """Predict the patches of a slide and draw them at their positions.

        Parameters
        ----------
        estimator : fitted classifier, or mapping of str to such
            One or several systems.
        X : array-like of shape (n_patches, ...)
            Instances of the slide.
        cells : array-like of int, shape (n_patches, 2)
            Row and column of each patch, as ``PatchGrid.cells``.
        shape : tuple of int
            (n_rows, n_columns), as ``PatchGrid.shape``.
        y : array-like of shape (n_patches,), optional
            True labels; labels other than the classes (vague, None) are left out.
        thumbnail, cell_pixels, patch_um
            As in the class.
        ax, colors, alpha
            As in :meth:`plot`.

        Returns
        -------
        display : SegmentationDisplay
        """
        systems = dict(estimator) if isinstance(estimator, Mapping) else {"prediction": estimator}
        classes = np.asarray(next(iter(systems.values())).classes_).tolist()
        position = {name: index for index, name in enumerate(classes)}

        def placed(labels):
            placed_labels = np.full(shape, -1)
            rows, columns = np.asarray(cells).T
            placed_labels[rows, columns] = [
                position.get(name, -1) for name in np.asarray(labels).tolist()
            ]
            return placed_labels

        return cls.from_predictions(
            None if y is None else placed(y),
            {name: placed(system.predict(X)) for name, system in systems.items()},
            classes=classes,
            thumbnail=thumbnail,
            cell_pixels=cell_pixels,
            patch_um=patch_um,
            ax=ax,
            colors=colors,
            alpha=alpha,
        )

    def plot(
        self, ax: Any = None, *, colors: Mapping | str | None = None, alpha: float = 0.6
    ) -> SegmentationDisplay:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, optional
            One axes (divided among the panels), or one per panel; default: a new figure.
        colors : mapping of class to color, or "colorblind", optional
            Default: the colors of the paper's Figure 5 where it names the class. "colorblind":
            the palette of Okabe and Ito (8 colors).
        alpha : float in [0, 1], default=0.6
            Opacity of the maps over a thumbnail.

        Returns
        -------
        self : SegmentationDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If ``colors`` is "colorblind" with more than 8 classes.
        """
        import_pyplot("SegmentationDisplay")
        from matplotlib.colors import to_rgba

        palette = class_palette(self.classes, self._colors(colors))
        titles = list(self.maps)
        n_pictures = 0 if self.thumbnail is None else 1
        n_rows, n_columns = self.maps[titles[0]].shape
        size = (2.8, max(1.2, min(5.0, 2.8 * n_rows / n_columns)) + 0.3)
        self.figure_, self.axes_ = panels(ax, len(titles) + n_pictures, n_columns=4, size=size)
        width, height, cell = self._extent(n_rows, n_columns)
        table = np.array(
            [*(to_rgba(color, alpha if n_pictures else 1.0) for color in palette), (0, 0, 0, 0)]
        )
        for number, axes in enumerate(self.axes_):
            if n_pictures:
                axes.imshow(self.thumbnail, extent=(0, width, height, 0))
            if number >= n_pictures:
                title = titles[number - n_pictures]
                map_extent = (0, n_columns * cell, n_rows * cell, 0)
                axes.imshow(table[self.maps[title]], extent=map_extent, interpolation="nearest")
            axes.set_title(title if number >= n_pictures else "slide", fontsize="medium")
            axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        self.ax_ = self.axes_[-1]
        present = np.unique(np.concatenate([values.ravel() for values in self.maps.values()]))
        shown = present[present >= 0]
        names = [self.classes[c] for c in shown]
        legend = add_legend(self.ax_, class_handles(names, [palette[c] for c in shown]))
        if ax is None and not self.ax_.get_subplotspec().is_last_col():
            legend.set_in_layout(False)  # the legend fits into the empty positions of the last row
        self.scale_bar_um_ = self._add_scale_bar(self.axes_[0], width, height, cell)
        return self

    def _colors(self, colors):
        if not isinstance(colors, str):
            return colors
        if colors != "colorblind" or len(self.classes) > len(OKABE_ITO):
            raise ValueError(
                f'colors must be a mapping or "colorblind" (up to {len(OKABE_ITO)} classes); got {colors!r} '
                f"for {len(self.classes)} classes."
            )
        return dict(zip(self.classes, OKABE_ITO, strict=False))

    def _extent(self, n_rows, n_columns):
        """Width and height of a panel and side of a patch, in units of its axes."""
        if self.thumbnail is None:
            return n_columns, n_rows, 1.0
        height, width = self.thumbnail.shape[:2]
        return width, height, self.cell_pixels or max(width / n_columns, height / n_rows)

    def _add_scale_bar(self, axes, width, height, cell):
        """Draw a scale bar of round length, at most a third of the panel; return the length in microns."""
        if self.patch_um is None:
            return None
        per_um = cell / self.patch_um
        fitting = [length for length in BAR_LENGTHS if length * per_um <= width / 3]
        length = fitting[-1] if fitting else BAR_LENGTHS[0]
        x, y = 0.04 * width, 0.95 * height
        axes.plot(
            [x, x + length * per_um], [y, y], color="black", linewidth=3, solid_capstyle="butt"
        )
        label = f"{length / 1000:g} mm" if length >= 1000 else f"{length} \N{MICRO SIGN}m"
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        axes.text(x, y - 0.02 * height, label, va="bottom", fontsize="small", bbox=box)
        return float(length)
