"""Parse percentages: numbers, ranges, limits, "about" and "trace"."""

import math
import re
from typing import NamedTuple

#: Largest error, in percentage points, of a number marked as approximate.
ABOUT = 5.0
#: Largest percentage meant by "trace".
TRACE = 5.0

_NUMBER = r"\s*\+?(\d+(?:[.,]\d*)?(?:[eE][+-]?\d+)?|[.,]\d+)\s*%?\s*"
_ONE = re.compile(_NUMBER)
_RANGE = re.compile(_NUMBER + "(?:[-\u2010-\u2015\u2212]|to)" + _NUMBER, re.IGNORECASE)
_ERROR = re.compile(_NUMBER + r"(?:\u00b1|\+/?-)" + _NUMBER)
_BELOW = re.compile("(?:<=?|\u2264)" + _NUMBER)
_ABOVE = re.compile("(?:>=?|\u2265)" + _NUMBER)
_ABOUT = re.compile(r"(?:~|\u2248|ca?\.?\s|ca\.|circa\s|about\s|approx\.?\s)" + _NUMBER, re.I)
_TRACE = re.compile("traces?", re.IGNORECASE)
_UNKNOWN = re.compile(r"\?|unknown|n/?a", re.IGNORECASE)
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|m\u00e4r|mai|okt|dez)"
_DATE = re.compile(
    rf"\d{{1,2}}[-. /]?{_MONTH}|{_MONTH}[-. /]?\d{{1,2}}|\d{{4}}-\d\d-\d\d.*", re.IGNORECASE
)


class Percentage(NamedTuple):
    """Content of a cell, in percentage points."""

    value: float
    lower: float
    upper: float
    is_exact: bool  # a plain number, to which an error stated for the whole table applies


def read_number(text: str) -> float:
    """Parse a number with decimal point or comma; NaN if the text is not a number."""
    found = _ONE.fullmatch(text)
    return _float(found[1]) if found else math.nan


def read_percentage(text: str) -> Percentage | None:
    """Parse the share of a class from a cell; None if it cannot be read.

    Parameters
    ----------
    text : str
        "70", "62,5", "70 %": that number; "70-80", "70 to 80", "75 +- 5": that range; "<5" and ">90": 0 to 5
        and 90 to 100; "~10", "ca. 10", "about 10": 5 to 15; "trace": 0 to 5. Dashes of any length, signs such
        as "≤", and percent signs are understood.

    Returns
    -------
    percentage : Percentage or None
        ``value`` of a range is its midpoint; ranges are clipped to 0 to 100.

    Examples
    --------
    >>> read_percentage("70-80%")
    Percentage(value=75.0, lower=70.0, upper=80.0, is_exact=False)
    >>> read_percentage("~3").lower, read_percentage("110"), read_percentage("some")
    (0.0, None, None)
    """
    if found := _ONE.fullmatch(text):
        value = _float(found[1])
        return Percentage(value, value, value, True) if 0 <= value <= 100 else None
    if found := _RANGE.fullmatch(text):
        return _between(_float(found[1]), _float(found[2]))
    if found := _ERROR.fullmatch(text):
        return _around(_float(found[1]), _float(found[2]))
    if found := _BELOW.fullmatch(text):
        return _between(0.0, _float(found[1]))
    if found := _ABOVE.fullmatch(text):
        return _between(_float(found[1]), 100.0)
    if found := _ABOUT.fullmatch(text):
        return _around(_float(found[1]), ABOUT)
    return _between(0.0, TRACE) if _TRACE.fullmatch(text) else None


def is_unknown(text: str) -> bool:
    """Whether a cell marks the share as unknown: "?", "unknown", "n/a" or "NA"."""
    return _UNKNOWN.fullmatch(text) is not None


def read_order(text: str) -> tuple[str, ...]:
    """Classes in decreasing order of their share.

    Parameters
    ----------
    text : str
        "acinar", or "acinar > solid > lepidic".

    Returns
    -------
    classes : tuple of str
        Empty for an empty text and for one that says "unknown" (:func:`is_unknown`).

    Examples
    --------
    >>> read_order("acinar > solid"), read_order("?")
    (('acinar', 'solid'), ())
    """
    if not text or is_unknown(text):
        return ()
    return tuple(name.strip() for name in text.split(">"))


def looks_like_a_date(text: str) -> bool:
    """Whether a spreadsheet program may have turned a range such as "10-12" into this."""
    return _DATE.fullmatch(text) is not None


def _float(text: str) -> float:
    return float(text.replace(",", "."))


def _between(lower: float, upper: float) -> Percentage | None:
    if not 0 <= lower <= upper <= 100:
        return None
    return Percentage((lower + upper) / 2, lower, upper, False)


def _around(value: float, error: float) -> Percentage | None:
    if not 0 <= value <= 100:
        return None
    return Percentage(value, max(0.0, value - error), min(100.0, value + error), False)
