"""Check that slide names are valid file names on every system."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MAX_BYTES = 200
"""Longest name: a file name has at most 255 bytes, with what the package appends to it."""


def check_names(names: Iterable[str]) -> None:
    """Raise unless every name can be that of a file, and no two are the same to some system.

    Parameters
    ----------
    names : iterable of str

    Raises
    ------
    TypeError
        If a name is no string.
    ValueError
        If a name is empty, "." or "..", holds "/", a backslash or a control character, cannot be written
        in UTF-8, or has more than 200 bytes; or if two names differ in case or Unicode form only.

    Examples
    --------
    >>> check_names(["slide_1", "../slide_2"])
    Traceback (most recent call last):
    ...
    ValueError: '../slide_2' cannot name the files of a slide: it holds '/'. Give a mapping of names to paths.
    """
    seen: dict[str, str] = {}
    for name in names:
        reason = _why_not(name)
        if reason:
            raise ValueError(
                f"{name!r} cannot name the files of a slide: {reason}. Give a mapping of names to paths."
            )
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        other = seen.setdefault(key, name)
        if other is not name:
            raise ValueError(
                f"the names {other!r} and {name!r} differ in case or Unicode form only, and would be one "
                "file on some systems; give a mapping of names to paths."
            )


def _why_not(name: str) -> str | None:
    if not isinstance(name, str):
        raise TypeError(f"names of slides must be strings, got {name!r}.")
    if name in ("", ".", ".."):
        return "it is no file name"
    bad = [c for c in name if c in "/\\" or unicodedata.category(c) == "Cc"]
    if bad:
        return f"it holds {bad[0]!r}"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it cannot be written in UTF-8"
    return f"it has {length} bytes, more than {MAX_BYTES}" if length > MAX_BYTES else None
