"""Axes, colors and checks shared by the displays of pseudo labels, selectivities and learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proportion_ssl._checks import check_intervals

#: Hatching of negative labels, as in the paper's figures, and the opacity of the color beneath.
HATCH = "/////"
TINT = 0.2

#: Width of the legend beside the last panel, in inches.
LEGEND_WIDTH = 1.5


def import_pyplot(display: str) -> Any:
    """Import matplotlib.pyplot; the ImportError says how to install it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f'{display} draws with matplotlib: pip install "proportion_ssl[plot]"'
        ) from error
    return pyplot


def check_classes(classes: Any, n_classes: int, what: str) -> list:
    """Class names as a list; by default the positions of the columns.

    Raises
    ------
    ValueError
        If their number is not that of the columns of ``what``, or a name is repeated.
    """
    if classes is None:
        return list(range(n_classes))
    names = np.asarray(classes).tolist()
    if len(names) != n_classes:
        raise ValueError(f"classes names {len(names)} classes but {what} has {n_classes} columns.")
    if len(set(names)) != len(names):
        raise ValueError(f"classes holds a class more than once: {names}.")
    return names


def check_ends(
    recorded: np.ndarray, lower: Any, upper: Any, bag_names: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the intervals of recorded shares (n_bags, n_classes); without intervals, the shares.

    Raises
    ------
    ValueError
        If one end is missing, shapes differ, an interval does not contain its recorded share, or no shares
        within the intervals sum to 1.
    """
    if lower is None and upper is None:
        return recorded, recorded
    if lower is None or upper is None:
        raise ValueError("lower and upper belong together; give both.")
    ends = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    for name, values in zip(("lower", "upper"), ends, strict=True):
        if values.shape != recorded.shape:
            raise ValueError(f"{name} has shape {values.shape}, recorded shares {recorded.shape}.")
    names = range(len(recorded)) if bag_names is None else bag_names
    check_intervals(*ends, names, recorded)
    return ends


def class_palette(classes: Sequence, colors: Mapping | None) -> list:
    """A matplotlib color per class: as given, else from the paper's Figure 5, else a distinct color.

    Raises
    ------
    ValueError
        If ``colors`` has an unknown class, or a color that is not valid in matplotlib.
    """
    from matplotlib.colors import is_color_like

    from proportion_ssl.colors import class_colors

    colors = {} if colors is None else dict(colors)
    for name, color in colors.items():
        if name not in classes:
            raise ValueError(f"colors has {name!r}, which is not among the classes {classes}.")
        if not is_color_like(color):
            raise ValueError(f"The color of class {name!r} is {color!r}; give a matplotlib color.")
    known = class_colors([str(name) for name in classes])
    return [colors.get(name, tuple(value / 255 for value in known[str(name)])) for name in classes]


def panels(ax: Any, n_panels: int, *, n_columns: int, size: tuple[float, float]) -> tuple:
    """Figure and axes to draw on.

    Parameters
    ----------
    ax : matplotlib Axes, array-like of n_panels Axes, or None
        None: a new figure. One Axes for several panels: its area is divided among them.
    n_panels, n_columns : int
    size : (float, float)
        Width and height of a panel of a new figure, in inches; the legend is placed beside the panels.

    Returns
    -------
    figure : matplotlib Figure
    axes : list of n_panels Axes

    Raises
    ------
    ValueError
        If the number of axes is not 1 or ``n_panels``.
    """
    from matplotlib import pyplot as plt
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    n_columns = min(n_columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    if ax is None:
        width, height = size[0] * n_columns + LEGEND_WIDTH, size[1] * n_rows
        figure = plt.figure(figsize=(width, height), layout="constrained")
        return figure, _subplots(figure, figure.add_gridspec(n_rows, n_columns), n_panels)
    given = np.array(ax, dtype=object).ravel().tolist()
    if len(given) == n_panels:
        return given[0].figure, given
    if len(given) != 1:
        raise ValueError(
            f"ax holds {len(given)} axes but {n_panels} panels are drawn; give one axes for all "
            "or one for each."
        )
    place = given[0].get_subplotspec()
    if place is None:
        raise ValueError(
            f"ax was not made by subplots, so its area cannot be divided among {n_panels} panels; "
            f"give {n_panels} axes."
        )
    given[0].set_axis_off()
    grid = GridSpecFromSubplotSpec(n_rows, n_columns, subplot_spec=place)
    return given[0].figure, _subplots(given[0].figure, grid, n_panels)


def _subplots(figure, grid, n_panels):
    return [figure.add_subplot(grid[divmod(i, grid.ncols)]) for i in range(n_panels)]


def tinted(palette: Sequence) -> list:
    """Colors beneath the hatching of negative labels."""
    from matplotlib.colors import to_rgba

    return [to_rgba(color, TINT) for color in palette]


def add_legend(ax: Any, handles: Sequence) -> Any:
    """Add and return a legend to the right of a panel."""
    return ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize="small",
    )


def class_handles(classes: Sequence, palette: Sequence) -> list:
    """Legend entries for the classes."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=color, edgecolor="0.3", linewidth=0.5, label=str(name))
        for name, color in zip(classes, palette, strict=True)
    ]


def sign_handles(positive: str, negative: str) -> list:
    """Legend entries for filled (positive) and hatched (negative)."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor="0.45", label=positive),
        Patch(facecolor=("0.45", TINT), edgecolor="0.45", hatch=HATCH, linewidth=0, label=negative),
    ]
