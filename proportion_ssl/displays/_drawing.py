"""What the displays of pseudo labels, selectivities and learning share: axes, colors, checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proportion_ssl._checks import check_intervals

#: Lines of a negative label, as in the paper's figures, and how much of its color lies under them.
HATCH = "/////"
TINT = 0.2

#: Inches that the legend beside the last panel takes.
LEGEND_WIDTH = 1.5


def import_pyplot(display: str) -> Any:
    """matplotlib.pyplot, or an ImportError that says how to get it."""
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
        If their number is not that of the columns of ``what``, or one comes twice.
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
    """Ends of the intervals of recorded shares (n_bags, n_classes); without any, the shares themselves.

    Raises
    ------
    ValueError
        If one end is missing, shapes differ, or intervals do not hold the recorded shares and some that sum
        to 1.
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
    """A matplotlib color per class: the given one, else that of the paper's Figure 5, else another.

    Raises
    ------
    ValueError
        If ``colors`` names a class that is not there, or a color that matplotlib does not know.
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
        None: a new figure. One Axes for several panels: its place is divided among them.
    n_panels, n_columns : int
    size : (float, float)
        Width and height of a panel of a new figure, in inches; the legend has its place beside them.

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
            f"ax was not made by subplots, so its place cannot be divided among {n_panels} panels; "
            f"give {n_panels} axes."
        )
    given[0].set_axis_off()
    grid = GridSpecFromSubplotSpec(n_rows, n_columns, subplot_spec=place)
    return given[0].figure, _subplots(given[0].figure, grid, n_panels)


def _subplots(figure, grid, n_panels):
    return [figure.add_subplot(grid[divmod(i, grid.ncols)]) for i in range(n_panels)]


def tinted(palette: Sequence) -> list:
    """The colors that lie under the lines of negative labels."""
    from matplotlib.colors import to_rgba

    return [to_rgba(color, TINT) for color in palette]


def add_legend(ax: Any, handles: Sequence) -> Any:
    """Legend to the right of a panel, returned."""
    return ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize="small",
    )


def class_handles(classes: Sequence, palette: Sequence) -> list:
    """Entries of a legend that names the classes."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=color, edgecolor="0.3", linewidth=0.5, label=str(name))
        for name, color in zip(classes, palette, strict=True)
    ]


def sign_handles(positive: str, negative: str) -> list:
    """Entries of a legend that says what filled and hatched mean."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor="0.45", label=positive),
        Patch(facecolor=("0.45", TINT), edgecolor="0.45", hatch=HATCH, linewidth=0, label=negative),
    ]
