"""Microns per pixel of a slide: as given, or as stated in the file if plausible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proportion_ssl.slides.grid import magnification_to_mpp
from proportion_ssl.slides.reading._errors import SlideError

PLAUSIBLE_MPP = (0.08, 20.0)
"""Range of plausible microns per pixel of the finest level stated in a file."""

POSSIBLE_MPP = (0.02, 200.0)
"""Microns per pixel that a user may give."""

CONTRADICTION = 1.5
"""Ratio above which two statements in one file contradict each other."""

SAME_MPP = 1.02
"""Largest ratio at which a given resolution equals that stated in a file."""

STATE_MPP = (
    "Give the true microns per pixel: mpp= in Python, the column mpp of a manifest, or --mpp of the commands "
    "apply and embed."
)
"""What to do about a missing or contradictory resolution."""

Pair = tuple[float, float]


def check_given_mpp(mpp: float | Sequence[float]) -> Pair:
    """Given microns per pixel as a pair (x, y).

    Raises
    ------
    ValueError
        If it is not one or two numbers between 0.02 and 200.
    """
    try:
        pair = tuple(float(v) for v in np.broadcast_to(np.asarray(mpp, dtype=float), 2))
    except (TypeError, ValueError):
        pair = ()
    if len(pair) != 2 or not all(np.isfinite(v) and v > 0 for v in pair):
        raise ValueError(f"mpp must be one or two (x, y) positive numbers of microns, got {mpp!r}.")
    if not all(POSSIBLE_MPP[0] <= v <= POSSIBLE_MPP[1] for v in pair):
        raise ValueError(
            f"mpp must lie between {POSSIBLE_MPP[0]:g} and {POSSIBLE_MPP[1]:g} microns per pixel "
            f"(0.5 is usual at 20x), got {mpp!r}."
        )
    return pair[0], pair[1]


def stated_mpp(
    path: str,
    tags: Pair | None,
    ome: Pair | None,
    aperio_magnification: float | None,
    magnification: float | None,
) -> Pair:
    """Microns per pixel (x, y) that a file states.

    Parameters
    ----------
    path : str
        Named in messages.
    tags : tuple of float or None
        Resolution tags, or metadata of the scanner.
    ome : tuple of float or None
        PhysicalSizeX and PhysicalSizeY of OME's metadata. Preferred: programs that write it often
        leave a placeholder such as 72 dpi in the tags.
    aperio_magnification : float or None
        AppMag of Aperio's description, which must not contradict `tags`. The magnification of
        other scanners is not compared: some state the objective, not the whole optics.
    magnification : float or None
        Nominal magnification, for the hint where there is no resolution.

    Raises
    ------
    SlideError
        If nothing is stated, nothing plausible, or two things that contradict each other.
    """
    sources = {"OME's PhysicalSize": ome, "its resolution metadata": tags}
    stated = {name: pair for name, pair in sources.items() if pair is not None}
    if not stated:
        hint = ""
        if magnification:
            hint = (
                f" Its metadata name a magnification of {magnification:g}x, which by convention "
                f"is {magnification_to_mpp(magnification):g} microns per pixel."
            )
        raise SlideError(f"{path} has no resolution metadata (openslide.mpp-x).{hint} {STATE_MPP}")
    said = " and ".join(f"{_text(pair)} in {name}" for name, pair in stated.items())
    low, high = PLAUSIBLE_MPP
    plausible = [pair for pair in stated.values() if all(low <= v <= high for v in pair)]
    if not plausible:
        hint = ""
        if magnification:
            hint = (
                f" (it also names a magnification of {magnification:g}x, by convention "
                f"{magnification_to_mpp(magnification):g})"
            )
        raise SlideError(
            f"{path} states {said}{hint}, but a slide has between {low:g} and {high:g}: a slip or "
            f"a placeholder of the program that wrote it. {STATE_MPP}"
        )
    resolution = plausible[0]
    if plausible[0] is not (ome or tags) or _contradict(plausible[0], plausible[-1]):
        raise SlideError(f"{path} contradicts itself: it states {said}. {STATE_MPP}")
    if aperio_magnification is not None:
        nominal = magnification_to_mpp(aperio_magnification)
        if _contradict(resolution, (nominal, nominal)):
            raise SlideError(
                f"{path} contradicts itself: it states {said}, but also a magnification of "
                f"{aperio_magnification:g}x (AppMag), which by convention is {nominal:g} um per "
                f"pixel. {STATE_MPP}"
            )
    return resolution


def contradicts(stated: float | None, mpp: float) -> bool:
    """Whether a given resolution differs from that of the file.

    Parameters
    ----------
    stated : float or None
        Microns per pixel stated by the file; None if it states no plausible value.
    mpp : float
        As given.
    """
    return stated is not None and max(stated / mpp, mpp / stated) > SAME_MPP


def _contradict(one, other):
    return any(
        max(a / b, b / a) > CONTRADICTION * (1 + 1e-9) for a, b in zip(one, other, strict=True)
    )


def _text(pair):
    numbers = dict.fromkeys(f"{v:.4g}" for v in pair)
    return f"{' x '.join(numbers)} um per pixel"
