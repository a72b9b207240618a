"""Class colors: the palette of Figure 5 of the paper, and conversion of color notations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from PIL import ImageColor

Color = tuple[int, int, int]

FIGURE5_COLORS: dict[str, Color] = {
    "lepidic": (255, 0, 0),
    "acinar": (255, 255, 0),
    "papillary": (0, 255, 0),
    "micropapillary": (0, 255, 255),
    "solid": (0, 0, 255),
    "non-cancer": (170, 170, 170),
    "vague": (0, 0, 0),
}
"""Colors of Figure 5 of the paper; non-cancer, which it leaves uncolored, is gray here."""

OTHER_COLORS: tuple[Color, ...] = (
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
    (0, 128, 128),
    (220, 190, 255),
    (170, 110, 40),
    (128, 0, 0),
    (128, 128, 0),
    (0, 0, 128),
)


def class_colors(
    classes: Sequence[str], colors: Mapping[str, Color] | None = None
) -> dict[str, Color]:
    """Assign a color to each class.

    Parameters
    ----------
    classes : sequence of str
        Class names.
    colors : mapping of str to (red, green, blue), optional
        Colors, 0..255, that take precedence for their classes.

    Returns
    -------
    palette : dict of str to (red, green, blue)
        In the order of ``classes``: the given color, else that of :data:`FIGURE5_COLORS`,
        else the next of a fixed list of distinct colors, which repeats after 16 classes.

    Raises
    ------
    ValueError
        If a given color is not three integers in 0..255.

    Examples
    --------
    >>> class_colors(["lepidic", "tumor"], {"tumor": (1, 2, 3)})
    {'lepidic': (255, 0, 0), 'tumor': (1, 2, 3)}
    """
    known = {**FIGURE5_COLORS, **(colors or {})}
    palette, n_others = {}, 0
    for name in classes:
        if name in known:
            palette[name] = check_color(known[name], f"the color of class {name!r}")
        else:
            palette[name] = OTHER_COLORS[n_others % len(OTHER_COLORS)]
            n_others += 1
    return palette


def check_color(color: Sequence[int], what: str) -> Color:
    """Three integers in 0..255 as a tuple; raises ValueError with a message that begins with ``what``."""
    values = tuple(color) if isinstance(color, Sequence) and not isinstance(color, str) else ()
    if len(values) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in values):
        raise ValueError(f"{what} must be three integers in 0..255, got {color!r}")
    return values


def unpack_argb(packed: int) -> Color:
    """Color from a signed or unsigned 32-bit integer, alpha red green blue (older QuPath).

    >>> unpack_argb(-65536)
    (255, 0, 0)
    """
    return ((packed >> 16) & 255, (packed >> 8) & 255, packed & 255)


def unpack_bgr(packed: int) -> Color:
    """Color from the integer blue * 65536 + green * 256 + red (Aperio ImageScope).

    >>> unpack_bgr(65280)
    (0, 255, 0)
    """
    return (packed & 255, (packed >> 8) & 255, (packed >> 16) & 255)


def parse_css(text: str) -> Color:
    """Color from a CSS notation: name, ``#rrggbb`` or ``rgb(...)``; opacity is dropped.

    Raises
    ------
    ValueError
        If the text is not a color.

    Examples
    --------
    >>> parse_css("rgba(0, 128, 255, 0.5)")
    (0, 128, 255)
    """
    rgba = re.fullmatch(r"\s*rgba\(([^,]+,[^,]+,[^,]+),[^,]+\)\s*", text)
    return ImageColor.getrgb(f"rgb({rgba[1]})" if rgba else text.strip())[:3]


def to_hex(color: Color) -> str:
    """Convert a color to ``#rrggbb`` notation.

    >>> to_hex((255, 0, 128))
    '#ff0080'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)
