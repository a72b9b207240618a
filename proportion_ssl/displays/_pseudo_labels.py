"""Pseudo labels of one bag over rounds: the paper's Figures 2 and 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from proportion_ssl.displays._drawing import (
    add_legend,
    check_classes,
    class_handles,
    class_palette,
    import_pyplot,
    panels,
    sign_handles,
    tinted,
)

BOX = 0.86  # side of a box; grid cells have side 1
HATCH_STEP = 0.4  # distance of hatch lines, as a share of the side of a box
N_COLUMNS = 4  # panels per row


class PseudoLabelDisplay:
    """Instances of one bag as boxes, filled for positive and hatched for negative labels.

    The outline of a box has the color of the predicted class. A box with a positive label is filled with the
    color of its class; a box with negative labels is hatched in the color of the excluded class, with one
    strip per class if there are several. One panel per round. It is recommended to use :meth:`from_estimator`
    or :meth:`from_predictions`.

    Parameters
    ----------
    signed_labels : list of ndarray of int8, each of shape (n_instances, n_classes)
        Pseudo labels of the bag, one matrix per shown round; +1 "is", -1 "is not", 0 unknown.
    predictions : list of ndarray, each of shape (n_instances,), optional
        Predicted class of each instance in each of these rounds.
    titles : list of str, optional
        One per round; default: "round 1" and so on.
    label_rounds : ndarray of int, shape (n_instances, n_classes), optional
        Round in which each label of the last matrix was set, 0 without a label. If given, it is shown in a
        further panel.
    classes : array-like of shape (n_classes,), optional
        Names of the columns; default: 0 to n_classes - 1.
    cells : array-like of int, shape (n_instances, 2), optional
        (row, column) of each instance in the grid of its slide, as in ``PatchGrid.cells``, so that the panel
        resembles the slide. Default: row by row, in the order of the instances.
    images : array-like of shape (n_instances, height, width, 3), uint8, optional
        Patch images, drawn under the boxes.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes, shape (n_panels,)
    ax_ : matplotlib Axes
        The first of them.

    Raises
    ------
    ValueError
        If the numbers of instances, classes or rounds do not match, or an instance has two positive labels.

    See Also
    --------
    SelectivityDisplay : How many instances of a bag are labeled, and why.

    Notes
    -----
    As Figures 2 and 7 of [1]_, which show one negative label per patch. Strips show multi negative labels
    (section 3.3), which are not in the figures.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> from proportion_ssl.displays import PseudoLabelDisplay
    >>> first = [[1, 0], [0, -1], [0, 0]]
    >>> second = [[1, 0], [1, 0], [0, 1]]
    >>> display = PseudoLabelDisplay.from_predictions(
    ...     [first, second], predictions=[["acinar", "solid", "solid"], ["acinar", "acinar", "solid"]],
    ...     classes=["acinar", "solid"],
    ... )
    >>> [ax.get_title() for ax in display.axes_]
    ['round 1', 'round 2']
    """

    def __init__(
        self,
        signed_labels: Sequence,
        *,
        predictions: Sequence | None = None,
        titles: Sequence[str] | None = None,
        label_rounds: Any = None,
        classes: Any = None,
        cells: Any = None,
        images: Any = None,
    ):
        self.signed_labels = _check_rounds(signed_labels)
        n_instances, n_classes = self.signed_labels[0].shape
        self.classes = check_classes(classes, n_classes, "each matrix of signed_labels")
        self.predictions = _check_predictions(
            predictions, len(self.signed_labels), n_instances, self.classes
        )
        self.titles = _check_titles(titles, len(self.signed_labels))
        self.label_rounds = _check_label_rounds(label_rounds, self.signed_labels[-1])
        self.cells = _check_cells(cells, n_instances)
        self.images = _check_images(images, n_instances)

    def plot(self, ax: Any = None, *, colors: Mapping | None = None) -> PseudoLabelDisplay:
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, optional
            One for each panel, or one whose area is divided among them. Default: a new figure.
        colors : mapping of class to matplotlib color, optional
            Default: the colors of the paper's Figure 5 for its classes, distinct ones for others.

        Returns
        -------
        self : PseudoLabelDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the number of axes is wrong, or a color is invalid.
        """
        import_pyplot("PseudoLabelDisplay")
        palette = class_palette(self.classes, colors)
        n_rounds = len(self.signed_labels)
        n_panels = n_rounds + (self.label_rounds is not None)
        n_rows, n_columns = self.cells.max(axis=0) + 1
        width = 3.0 if n_columns <= 1.6 * n_rows else 4.2
        height = min(max(width * n_rows / n_columns, 0.8), 6.0) + 0.5
        self.figure_, axes = panels(ax, n_panels, n_columns=N_COLUMNS, size=(width, height))
        for i, signed in enumerate(self.signed_labels):
            self._prepare(axes[i], self.titles[i])
            self._draw_outlines(axes[i], i, palette)
            self._draw_labels(axes[i], signed, palette)
        if self.label_rounds is not None:
            self._prepare(axes[-1], "labeled since round")
            self._draw_since(axes[-1])
        self._draw_legend(axes[min(n_panels, N_COLUMNS) - 1], palette)  # right end of the first row
        self.axes_ = np.array(axes, dtype=object)
        self.ax_ = axes[0]
        return self

    @classmethod
    def from_predictions(
        cls,
        signed_labels: Sequence,
        *,
        predictions: Sequence | None = None,
        titles: Sequence[str] | None = None,
        classes: Any = None,
        cells: Any = None,
        images: Any = None,
        colors: Mapping | None = None,
        ax: Any = None,
    ) -> PseudoLabelDisplay:
        """Draw the pseudo labels of a bag in one or several rounds.

        Parameters
        ----------
        signed_labels : list of array-like, each of shape (n_instances, n_classes)
            Output of a selector, one matrix per round.
        predictions : list of array-like, each of shape (n_instances,), optional
            Predicted class of each instance in each round, from which the labels were chosen.
        titles : list of str, optional
            One per round; default: "round 1" and so on.
        classes : array-like of shape (n_classes,), optional
            Names of the columns.
        cells : array-like of int, shape (n_instances, 2), optional
            (row, column) of each instance.
        images : array-like of shape (n_instances, height, width, 3), uint8, optional
            Patch images.
        colors : mapping of class to matplotlib color, optional
            As in :meth:`plot`.
        ax : matplotlib Axes or array-like of Axes, optional
            As in :meth:`plot`.

        Returns
        -------
        display : PseudoLabelDisplay
        """
        display = cls(
            signed_labels,
            predictions=predictions,
            titles=titles,
            classes=classes,
            cells=cells,
            images=images,
        )
        return display.plot(ax, colors=colors)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        bag: Any,
        *,
        rounds: Sequence[int] | None = None,
        X: Any = None,
        cells: Any = None,
        images: Any = None,
        colors: Mapping | None = None,
        ax: Any = None,
    ) -> PseudoLabelDisplay:
        """Draw the pseudo labels of a bag in given rounds, or in the last round with the round of each label.

        Parameters
        ----------
        estimator : NegativePseudoLabelClassifier
            Fitted with bags.
        bag : str or int
            Name of the bag, among ``estimator.bag_names_``.
        rounds : sequence of int, optional
            Rounds to show, 1 to ``estimator.n_iter_``. Default: the last round, with a second panel of the
            round in which each label was set.
        X : array-like of shape (n_instances, ...), optional
            Instances of the bag; their outlines then have the color of the class predicted by the fitted
            estimator, after the last round and the refit. Not with ``rounds``, whose predictions are not
            stored (pass them to :meth:`from_predictions`).
        cells : array-like of int, shape (n_instances, 2), optional
            (row, column) of each instance.
        images : array-like of shape (n_instances, height, width, 3), uint8, optional
            Patch images.
        colors : mapping of class to matplotlib color, optional
            As in :meth:`plot`.
        ax : matplotlib Axes or array-like of Axes, optional
            As in :meth:`plot`.

        Returns
        -------
        display : PseudoLabelDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator was fitted without bags, or has no such bag or round.

        Examples
        --------
        >>> from proportion_ssl import NegativePseudoLabelClassifier
        >>> from proportion_ssl.datasets import make_bags
        >>> from proportion_ssl.displays import PseudoLabelDisplay
        >>> data = make_bags(n_bags=4, random_state=0)
        >>> clf = NegativePseudoLabelClassifier(max_epochs=3, random_state=0)
        >>> clf = clf.fit(data.X_labeled, data.y, data.bags)
        >>> display = PseudoLabelDisplay.from_estimator(clf, bag=clf.bag_names_[0])
        >>> [ax.get_title() for ax in display.axes_]
        ['round 3', 'labeled since round']
        >>> display = PseudoLabelDisplay.from_estimator(clf, bag=clf.bag_names_[0], rounds=[1, 2, 3])
        >>> [ax.get_title() for ax in display.axes_]
        ['round 1', 'round 2', 'round 3']
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "signed_labels_"):
            raise ValueError(
                f"This {type(estimator).__name__} was fitted without bags and has no pseudo labels; "
                "fit it with X_bags."
            )
        names = np.asarray(estimator.bag_names_).tolist()
        bag = bag.item() if isinstance(bag, np.generic) else bag
        if bag not in names:
            shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
            raise ValueError(f"The estimator has no bag {bag!r}; its bags are {shown}.")
        rows = np.flatnonzero(np.asarray(estimator.bag_index_) == names.index(bag))
        if rounds is None:
            signed = [estimator.signed_labels_[rows]]
            titles, label_rounds = [f"round {estimator.n_iter_}"], estimator.label_rounds_[rows]
        else:
            signed = _replay(estimator, rounds, rows)
            titles, label_rounds = [f"round {i}" for i in rounds], None
        if X is not None:
            if rounds is not None:
                raise ValueError(
                    "X is predicted by the fitted net, not by the nets of the rounds; give either X or "
                    "rounds, or pass the predictions of each round to from_predictions."
                )
            if len(X) != len(rows):
                raise ValueError(f"X has {len(X)} instances but bag {bag!r} has {len(rows)}.")
        display = cls(
            signed,
            predictions=None if X is None else [estimator.predict(X)],
            titles=titles,
            label_rounds=label_rounds,
            classes=estimator.classes_,
            cells=cells,
            images=images,
        )
        return display.plot(ax, colors=colors)

    def _prepare(self, ax, title):
        """Empty panel with the frame of the grid, and the patch images if given."""
        n_rows, n_columns = self.cells.max(axis=0) + 1
        ax.set(xlim=(-0.05, n_columns + 0.05), ylim=(n_rows + 0.05, -0.05), aspect="equal")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize="medium")
        for spine in ax.spines.values():
            spine.set_visible(False)
        if self.images is not None:
            height, width = self.images.shape[1:3]
            canvas = np.full((n_rows * height, n_columns * width, 3), 255, dtype=np.uint8)
            for (row, column), image in zip(self.cells.tolist(), self.images, strict=True):
                canvas[row * height : (row + 1) * height, column * width : (column + 1) * width] = (
                    image
                )
            ax.imshow(canvas, extent=(0, n_columns, n_rows, 0), interpolation="nearest", zorder=0)

    def _draw_outlines(self, ax, i, palette):
        """Draw the boxes, in the color of the predicted class if known."""
        if self.predictions is None:
            self._draw_boxes(ax)
            return
        boxes = _strips(self.cells, 0, 1)
        for c, color in enumerate(palette):
            _add(
                ax,
                boxes[self.predictions[i] == c],
                edgecolor=color,
                facecolor="none",
                linewidth=self._line_width(ax, 1.6),
                gid=f"outline:{self.classes[c]}",
                zorder=3,
            )

    def _draw_boxes(self, ax):
        style = {"edgecolor": "0.6", "facecolor": "none", "linewidth": self._line_width(ax, 0.6)}
        _add(ax, _strips(self.cells, 0, 1), gid="outline", zorder=3, **style)

    def _line_width(self, ax, widest):
        """Line width in points, thinner for small boxes."""
        n_rows, n_columns = self.cells.max(axis=0) + 1
        place, (width, height) = ax.get_position(original=True), ax.figure.get_size_inches()
        cell = 72 * min(place.width * width / n_columns, place.height * height / n_rows)
        return min(widest, 0.12 * cell)

    def _draw_labels(self, ax, signed, palette):
        """Draw filled boxes and hatched strips."""
        from matplotlib.collections import LineCollection

        tints = tinted(palette)
        alpha = 1.0 if self.images is None else 0.55
        for c, color in enumerate(palette):
            chosen = np.flatnonzero(signed[:, c] > 0)
            _add(
                ax,
                _strips(self.cells[chosen], 0, 1),
                facecolor=color,
                edgecolor="none",
                alpha=alpha,
                gid=f"positive:{self.classes[c]}",
                zorder=2,
            )
            strips = _strips_of(self.cells, signed, c)
            name = f"negative:{self.classes[c]}"
            _add(ax, strips, facecolor=tints[c], edgecolor="none", gid=name, zorder=2)
            if len(strips):
                lines = LineCollection(_hatch(strips), colors=[color], zorder=2.5)
                lines.set(linewidth=self._line_width(ax, 1.2), gid=f"hatch:{self.classes[c]}")
                ax.add_collection(lines, autolim=False)

    def _draw_since(self, ax):
        """Draw the labels of the last matrix, colored by the round in which they were set."""
        from matplotlib.collections import PolyCollection

        signed = self.signed_labels[-1]
        self._draw_boxes(ax)
        strips = [_strips_of(self.cells, signed, c, sign=0) for c in range(signed.shape[1])]
        rounds = [self.label_rounds[signed[:, c] != 0, c] for c in range(signed.shape[1])]
        since = PolyCollection(list(np.concatenate(strips)), linewidth=0, cmap="cividis", zorder=2)
        since.set(array=np.concatenate(rounds), gid="since")
        most = max(int(self.label_rounds.max(initial=0)), 1)
        since.set_clim(1, max(most, 2))
        ax.add_collection(since)
        place = ax.inset_axes([0.1, -0.1, 0.8, 0.04])
        bar = ax.figure.colorbar(since, cax=place, orientation="horizontal")
        bar.set_ticks(sorted({1, (1 + most) // 2, most}))

    def _draw_legend(self, ax, palette):
        from matplotlib.patches import Patch

        outline = "empty: no label" if self.predictions is None else "outline: predicted"
        add_legend(
            ax,
            [
                *class_handles(self.classes, palette),
                *sign_handles("filled: is", "hatched: is not"),
                Patch(facecolor="none", edgecolor="0.45", label=outline),
            ],
        )


def _replay(estimator, rounds, rows):
    """Labels of a bag's instances in earlier rounds."""
    wrong = [i for i in rounds if not 1 <= i <= estimator.n_iter_]
    if wrong:
        raise ValueError(
            f"rounds has {wrong[0]}; this {type(estimator).__name__} has rounds 1 to {estimator.n_iter_}."
        )
    return [estimator.label_log_.replay(i)[rows] for i in rounds]


def _strips(cells, left, right):
    """Corners, shape (n, 4, 2), of the part of each box between two shares of its width."""
    margin = (1 - BOX) / 2
    left, right = np.broadcast_to(left, len(cells)), np.broadcast_to(right, len(cells))
    x0 = cells[:, 1] + margin + BOX * left
    x1 = cells[:, 1] + margin + BOX * right
    y0, y1 = cells[:, 0] + margin, cells[:, 0] + margin + BOX
    return np.stack([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]).transpose(2, 0, 1)


def _hatch(strips):
    """Ends, shape (n_lines, 2, 2), of the oblique lines in rectangles given by their corners.

    Not drawn with matplotlib's hatching, whose line distance does not scale with the size of a box.
    """
    (x0, y0), (x1, y1) = strips[:, 0].T, strips[:, 2].T
    lines = []
    for step in np.arange(HATCH_STEP, 2.0, HATCH_STEP) * BOX:
        box_start = np.floor(x0) + (1 - BOX) / 2
        total = box_start + y0 + step  # x + y along the line
        left, right = np.maximum(x0, total - y1), np.minimum(x1, total - y0)
        crosses = left < right
        ends = np.stack([[left, total - left], [right, total - right]])
        lines.append(ends.transpose(2, 0, 1)[crosses])
    return np.concatenate(lines)


def _strips_of(cells, signed, c, sign=-1):
    """Strips of class ``c``; the number of strips per box is that of its labels with the sign (0: any)."""
    has_label = signed != 0 if sign == 0 else signed == sign
    chosen = np.flatnonzero(has_label[:, c])
    before = has_label[chosen, :c].sum(axis=1)
    n_labels = has_label[chosen].sum(axis=1)
    return _strips(cells[chosen], before / n_labels, (before + 1) / n_labels)


def _add(ax, polygons, **style):
    from matplotlib.collections import PolyCollection

    if len(polygons):
        ax.add_collection(PolyCollection(polygons, **style))


def _check_rounds(signed_labels):
    if len(signed_labels) == 0:
        raise ValueError("signed_labels is empty; give one matrix per round.")
    rounds = [np.asarray(signed) for signed in signed_labels]
    shape = rounds[0].shape
    for i, signed in enumerate(rounds):
        if signed.ndim != 2 or signed.size == 0:
            raise ValueError(
                f"signed_labels[{i}] has shape {signed.shape}; give a list of matrices "
                "(n_instances, n_classes), one per round."
            )
        if signed.shape != shape:
            raise ValueError(
                f"signed_labels[{i}] has shape {signed.shape} but signed_labels[0] {shape}; give the "
                "same bag in each round."
            )
        if not np.isin(signed, (-1, 0, 1)).all():
            wrong = signed[~np.isin(signed, (-1, 0, 1))][0].item()
            raise ValueError(f"signed_labels[{i}] holds {wrong}; labels are +1, -1 or 0.")
        twice = np.flatnonzero((signed > 0).sum(axis=1) > 1)
        if len(twice):
            raise ValueError(
                f"Instance {twice[0]} has two positive labels in signed_labels[{i}]; it can be of one "
                "class only."
            )
    return rounds


def _check_predictions(predictions, n_rounds, n_instances, classes):
    """Class codes, one vector per round."""
    if predictions is None:
        return None
    if len(predictions) != n_rounds:
        raise ValueError(
            f"predictions has {len(predictions)} rounds but signed_labels has {n_rounds}; give one "
            "vector of classes for each."
        )
    lookup = {name: code for code, name in enumerate(classes)}
    rounds = []
    for i, predicted in enumerate(predictions):
        names = np.asarray(predicted)
        if names.shape != (n_instances,):
            raise ValueError(
                f"predictions[{i}] has shape {names.shape}; {n_instances} instances need one class each."
            )
        unknown = [name for name in names.tolist() if name not in lookup]
        if unknown:
            raise ValueError(
                f"predictions[{i}] has {unknown[0]!r}, which is not among the classes {classes}."
            )
        rounds.append(np.array([lookup[name] for name in names.tolist()]))
    return rounds


def _check_titles(titles, n_rounds):
    if titles is None:
        return [f"round {i + 1}" for i in range(n_rounds)]
    if isinstance(titles, str) or len(titles) != n_rounds:
        raise ValueError(
            f"titles must be a list of {n_rounds} texts, one per round; got {titles!r}."
        )
    return [str(title) for title in titles]


def _check_label_rounds(label_rounds, signed):
    if label_rounds is None:
        return None
    label_rounds = np.asarray(label_rounds)
    if label_rounds.shape != signed.shape:
        raise ValueError(
            f"label_rounds has shape {label_rounds.shape} but the labels have {signed.shape}."
        )
    return label_rounds


def _check_cells(cells, n_instances):
    """(row, column) from 0 in the bounding box of all instances."""
    if cells is None:
        n_columns = int(np.ceil(np.sqrt(n_instances)))
        return np.stack(np.divmod(np.arange(n_instances), n_columns), axis=1)
    cells = np.asarray(cells)
    if cells.shape != (n_instances, 2) or cells.dtype.kind not in "iu":
        raise ValueError(
            f"cells has shape {cells.shape} and type {cells.dtype}; give (row, column) as integers for "
            f"each of {n_instances} instances."
        )
    unique, counts = np.unique(cells, axis=0, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"cell {tuple(unique[counts > 1][0].tolist())} occurs {counts.max()} times; give each once."
        )
    return cells.astype(np.int64) - cells.min(axis=0)


def _check_images(images, n_instances):
    if images is None:
        return None
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"images has shape {images.shape} and type {images.dtype}; give uint8 images "
            "(n_instances, height, width, 3)."
        )
    if len(images) != n_instances:
        raise ValueError(
            f"images holds {len(images)} patches but there are {n_instances} instances."
        )
    return images
