"""Warnings that point to the user's line, however deep they arise."""

import sys
import warnings
from types import FrameType

#: Between the user's line and the place of the warning; a search or a pipeline calls ``fit`` as well.
PACKAGES = (
    *("proportion_ssl", "sklearn", "skorch", "torch", "joblib"),
    *("threading", "concurrent", "multiprocessing", "runpy"),
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that is not in a library.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    """
    caller = frame = sys._getframe(1)
    while frame.f_back is not None and _is_library(frame):
        frame = frame.f_back
    if _is_library(frame):  # a thread or process of its own
        frame = caller
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__") or "__main__",
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _is_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in PACKAGES
