"""Checks of class shares and their tables, with one tolerance and consistent messages."""

import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from proportion_ssl._warnings import warn

#: Maximum deviation of the sum of the shares of a bag from 1, because recorded shares are rounded.
SUM_TOLERANCE = 0.01

#: Absorbs floating-point errors of sums that deviate by exactly the tolerance, such as 0.33 + 0.33 + 0.33.
GUARD = 1e-9

#: Largest error of recorded shares that can be stated: no standard deviation of a share is larger.
LARGEST_ERROR = 0.5

#: Largest deviation of the sum of shares from 1 that rounding or estimation may explain.
MOST_BY_ROUNDING = 0.15

ROUNDED_HINT = (
    " If they were rounded or estimated, state this by rounding_step= or standard_deviation= of Bags; do not "
    "normalize them."
)

PERCENT_HINT = " They look like percent: divide by 100."


def check_shares(
    shares: np.ndarray,
    what: str,
    *,
    bags: Any = None,
    may_miss: bool = False,
    any_sum: bool = False,
    may_be_rounded: bool = False,
) -> None:
    """Raise unless every row contains class shares.

    Parameters
    ----------
    shares : ndarray of float, shape (n_classes,) or (n_bags, n_classes)
    what : str
        Name of the shares for the message, in the plural, such as "The proportions".
    bags : sequence of n_bags names, optional
        Bag of each row, for the message. Default: the position of the row.
    may_miss : bool, default=False
        Whether shares may be NaN (not recorded). Each row needs at least one share.
    any_sum : bool, default=False
        Whether rows may have any sum. For shares with a stated error, their intervals must admit a sum of 1
        instead.
    may_be_rounded : bool, default=False
        Whether the message may suggest to state an error of the shares.

    Raises
    ------
    ValueError
        If shares are not finite, negative, above 1, or do not sum to 1 within 0.01 (to at most 1 if some are
        missing). The message names the first wrong row.

    Examples
    --------
    >>> import numpy as np
    >>> check_shares(np.array([0.33, 0.33, 0.33]), "The proportions")
    >>> check_shares(np.array([[0.5, 0.5], [70, 30]]), "The proportions", bags=["a", "b"])
    Traceback (most recent call last):
      ...
    ValueError: The proportions of bag 'b' sum to 100, not 1 (within 0.01): [70.0, 30.0]; 1 of 2 bags is \
wrong. They look like percent: divide by 100.
    """
    rows = np.atleast_2d(shares)
    found = _first_problem(rows, whole=1.0, may_miss=may_miss, any_sum=any_sum)
    if found is None:
        return
    row, problem, n_wrong = found
    name = row if bags is None else np.asarray(bags)[row : row + 1].tolist()[0]
    of_bag = f" of bag {name!r}" if np.ndim(shares) == 2 else ""
    count = f"; {n_wrong} of {len(rows)} bags {'is' if n_wrong == 1 else 'are'} wrong"
    hint = percent_hint(rows[row])
    if np.isnan(rows[row]).all():
        hint = " Leave out bags without a record."
    elif may_be_rounded and rows[row].min() >= 0 and abs(rows[row].sum() - 1) <= MOST_BY_ROUNDING:
        hint = ROUNDED_HINT
    raise ValueError(
        f"{what}{of_bag} {problem}: {rows[row].tolist()}{count if len(rows) > 1 else ''}.{hint}"
    )


def check_ids(ids: Any, n: int, what: str, of: str) -> np.ndarray:
    """Check that there is one slide or bag for each instance.

    Parameters
    ----------
    ids : array-like of shape (n,)
    n : int
        Number of instances.
    what, of : str
        Name of the ids, and of the instances in the plural, for messages.

    Returns
    -------
    ids : ndarray of shape (n,)

    Raises
    ------
    ValueError
        If the shape differs, ids are missing, or only some are strings.

    Examples
    --------
    >>> check_ids(["a", "b"], 3, "groups", "labeled patches")
    Traceback (most recent call last):
      ...
    ValueError: groups has shape (2,), but there are 3 labeled patches; give the slide of each, shape (3,).
    """
    try:
        found = np.asarray(ids)
    except ValueError:  # rows of different lengths
        found = np.empty(0)
    if found.shape != (n,):
        raise ValueError(
            f"{what} has shape {found.shape}, but there are {n} {of}; give the slide of each, shape ({n},)."
        )
    # other types hold no None; an array of them, of every patch of a cohort, is compared at once
    n_missing = int(
        sum(map(_is_missing, found)) if found.dtype == object else (found != found).sum()
    )
    if n_missing:
        raise ValueError(
            f"{what} holds {n_missing} missing value{'s' if n_missing > 1 else ''} (None or NaN); give one "
            f"for each of the {n} {of}, or leave these {of} out."
        )
    check_one_kind(found, what)
    return found


def check_one_kind(names: np.ndarray, what: str) -> None:
    """Raise if some names are strings and others are not, such as "1" and 1, which cannot be sorted.

    Parameters
    ----------
    names : ndarray of shape (n,)
    what : str
        Of the names, at the start of the message.

    Raises
    ------
    ValueError
        The message shows one of each kind.

    Examples
    --------
    >>> check_one_kind(np.array(["1", 2], dtype=object), "bag_ids")
    Traceback (most recent call last):
      ...
    ValueError: bag_ids has strings and other values ('1' and 2); write all as strings.
    """
    kinds = first_of_each_kind(names) if names.dtype == object else {}
    if len(kinds) == 2:
        shown = " and ".join(map(repr, kinds.values()))
        raise ValueError(f"{what} has strings and other values ({shown}); write all as strings.")


def first_of_each_kind(names: np.ndarray) -> dict[bool, Any]:
    """First string, under True, and first other value, under False, if there are such.

    Examples
    --------
    >>> first_of_each_kind(np.array([3, "b", 2, "a"], dtype=object))
    {True: 'b', False: 3}
    """
    first: dict[bool, Any] = {}
    for name in names.tolist():
        first.setdefault(isinstance(name, str), name)
    return dict(sorted(first.items(), reverse=True))


def _is_missing(value):
    """Whether a value is None, NaN, NaT or pandas' NA, which compares to NA."""
    return value is None or type(value).__name__ == "NAType" or bool(value != value)


def share_problem(shares: np.ndarray, *, whole: float = 1.0, may_miss: bool = False) -> str:
    """Describe what is wrong with the shares of one bag, for code that collects messages.

    Parameters
    ----------
    shares : ndarray of float, shape (n_classes,)
    whole : float, default=1.0
        Expected sum of the shares; 100 for percentages.
    may_miss : bool, default=False
        As in :func:`check_shares`.

    Returns
    -------
    problem : str
        Continues "the shares ..."; empty if nothing is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> share_problem(np.array([70.0, 29.0]), whole=100)
    ''
    >>> share_problem(np.array([0.7, 0.3]), whole=100)
    'sum to 1, not 100 (within 1). They look like fractions: multiply by 100'
    """
    found = _first_problem(np.atleast_2d(shares), whole=whole, may_miss=may_miss)
    if found is None:
        return ""
    is_fraction = whole > 1 and abs(np.nansum(shares) - 1) <= SUM_TOLERANCE + GUARD
    hint = ". They look like fractions: multiply by 100" if is_fraction else ""
    return found[1] + (hint or (percent_hint(shares).rstrip(".") if whole == 1 else ""))


def check_intervals(
    lower: np.ndarray, upper: np.ndarray, names: Any, proportions: np.ndarray | None = None
) -> None:
    """Raise unless every row of intervals admits shares that sum to 1.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_bags, n_classes)
    names : sequence of n_bags names
        Bag names for the messages.
    proportions : ndarray of shape (n_bags, n_classes), optional
        Recorded shares, which must lie within the intervals.

    Raises
    ------
    ValueError
        If ends are not finite or not in [0, 1], a lower end is above the upper end, the intervals admit no
        shares with sum 1 (within 0.01), or a recorded share is outside its interval. The message names the
        bag.
    """
    most, least = upper.sum(axis=1), lower.sum(axis=1)
    outside = np.zeros(len(lower), dtype=bool)
    if proportions is not None:
        too_small, too_large = proportions < lower - GUARD, proportions > upper + GUARD
        outside = np.any(too_small | too_large, axis=1)
    for problem, rows in (
        (
            "has an interval whose end is not a finite number",
            ~np.isfinite(lower + upper).all(axis=1),
        ),
        (
            "has an interval outside [0, 1]",
            ((lower < 0) | (upper > 1 + SUM_TOLERANCE + GUARD)).any(axis=1),
        ),
        (
            "has an interval whose lower end is above its upper end",
            (lower > upper + GUARD).any(axis=1),
        ),
        ("has upper ends that sum to less than 1 ({most:.6g})", most < 1 - SUM_TOLERANCE - GUARD),
        ("has lower ends that sum to more than 1 ({least:.6g})", least > 1 + SUM_TOLERANCE + GUARD),
        ("has a recorded share outside its interval", outside),
    ):
        if rows.any():
            bag = int(np.flatnonzero(rows)[0])
            name = np.asarray(names)[bag : bag + 1].tolist()[0]
            problem = problem.format(most=most[bag], least=least[bag])
            ends = f"{lower[bag].round(6).tolist()} to {upper[bag].round(6).tolist()}"
            written = "" if proportions is None else f", recorded {proportions[bag].tolist()}"
            largest = max(lower[bag].max(), upper[bag].max())
            hint = PERCENT_HINT if 1 + SUM_TOLERANCE < largest <= 100 else ""
            raise ValueError(f"Bag {name!r} {problem}: {ends}{written}.{hint}")


def check_fraction(value: Any, what: str, *, closed: str = "both", most: float = 1) -> None:
    """Raise unless a number, or every number of an array, is a fraction.

    Parameters
    ----------
    value : array-like of float
    what : str
        Name of the argument.
    closed : {"both", "left", "right", "neither"}, default="both"
        Which ends of the interval from 0 to `most` are allowed.
    most : float, default=1
        Upper end of the interval.

    Raises
    ------
    ValueError
        If a number is outside the interval; the message names the argument.

    Examples
    --------
    >>> check_fraction(95, "level", closed="neither")
    Traceback (most recent call last):
      ...
    ValueError: level must be in (0, 1); got 95. It looks like percent: divide by 100.
    """
    values = np.asarray(value, dtype=np.float64)
    with_0, with_1 = closed in ("both", "left"), closed in ("both", "right")
    inside = (values >= 0 if with_0 else values > 0) & (values <= most if with_1 else values < most)
    if inside.all():
        return
    wrong = values[~inside].flat[0]
    hint = " It looks like percent: divide by 100." if 1 <= wrong <= 100 else ""
    interval = f"{'[' if with_0 else '('}0, {most:g}{']' if with_1 else ')'}"
    raise ValueError(f"{what} must be in {interval}; got {wrong:g}.{hint}")


def check_stated_error(value: Any, what: str) -> None:
    """Raise unless the stated error of recorded shares is in its range.

    Parameters
    ----------
    value : array-like of float
        As a fraction: 0.05 for 5 percentage points.
    what : {"rounding_step", "standard_deviation"}
        A rounding step is in (0, 0.5], a standard deviation in [0, 0.5].

    Raises
    ------
    ValueError
        Naming the argument.

    Examples
    --------
    >>> check_stated_error(5, "rounding_step")
    Traceback (most recent call last):
      ...
    ValueError: rounding_step must be in (0, 0.5]; got 5. It looks like percent: divide by 100.
    """
    closed = "right" if what == "rounding_step" else "both"
    check_fraction(value, what, closed=closed, most=LARGEST_ERROR)


def warn_if_reordered(seen: Any, taken: Any, what: str, otherwise: str = "") -> None:
    """Warn if rows or columns without names are matched by position in a possibly unintended order.

    Parameters
    ----------
    seen : array-like of shape (n_names,)
        Names in the order of the data. Only strings are ambiguous; numbers are positions.
    taken : array-like of shape (n_names,)
        Names in the assumed order of the rows or columns.
    what : str
        Name of the matched rows or columns for the message, in the plural.
    otherwise : str, default=""
        End of the message: what to do if the assumed order is right.

    Warns
    -----
    UserWarning
        If the names are strings and the orders differ.
    """
    seen, taken = np.asarray(seen).tolist(), np.asarray(taken).tolist()
    if seen == taken or not all(isinstance(name, str) for name in taken):
        return
    shown = [
        ", ".join([*map(repr, names[:3]), *["..."] * (len(names) > 3)]) for names in (taken, seen)
    ]
    warn(
        f"{what} have no names and are assumed to be in the order {shown[0]}, but the data have {shown[1]}. "
        f"Give a DataFrame (or a Series), which is matched by name.{otherwise}",
    )


def percent_hint(shares: np.ndarray) -> str:
    """Hint for the end of a message if shares look like percentages, else an empty string.

    Parameters
    ----------
    shares : ndarray of float, shape (n_classes,)
        Shares of one bag; NaN: not recorded.

    Returns
    -------
    hint : str
    """
    stated = shares[np.isfinite(shares)]
    total = stated.sum()
    near = total <= 110 and (total >= 90 or len(stated) < len(shares))
    looks = len(stated) > 0 and stated.min() >= 0 and stated.max() > 1 + SUM_TOLERANCE and near
    return PERCENT_HINT if looks else ""


def _first_problem(rows, *, whole, may_miss, any_sum=False):
    """First row with a problem, the problem as text, and the number of such rows; None without problems."""
    missing, tolerance = np.isnan(rows), whole * SUM_TOLERANCE + GUARD
    sums = np.nansum(rows, axis=1)
    some_missing = missing.any(axis=1)
    off = np.where(some_missing, sums > whole + tolerance, np.abs(sums - whole) > tolerance)
    not_finite = np.isinf(rows).any(axis=1) | (some_missing & (not may_miss))
    for problem, wrong in (
        ("hold a number that is not finite", not_finite),
        ("state no share", missing.all(axis=1)),
        ("hold a negative share", (rows < 0).any(axis=1)),
        ("sum", off & (not any_sum)),
        (f"hold a share above {whole:g}", (rows > whole + tolerance).any(axis=1)),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            if problem == "sum":
                most = "at most " if some_missing[row] else ""
                problem = f"sum to {sums[row]:.6g}, not {most}{whole:g} (within {whole * SUM_TOLERANCE:g})"
            return row, problem, int(wrong.sum())
    return None


def suggestion(name: str, known: Sequence[str]) -> str:
    """Question that names the nearest known name, to end a message with; empty without such a name.

    Parameters
    ----------
    name : str
        As written.
    known : sequence of str

    Returns
    -------
    question : str

    Examples
    --------
    >>> suggestion("Solid", ["acinar", "solid"]), suggestion("glass", ["acinar", "solid"])
    (" Did you mean 'solid'?", '')
    """
    by_lower = {other.lower(): other for other in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.75)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def same_spelling(name: str) -> str:
    """Normal form of a class name: equal for names that differ only in case, in spaces or in code points."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def check_distinct(names: Sequence, what: str) -> None:
    """Raise if two names differ only in case or in spaces around them, which readers take for one.

    Parameters
    ----------
    names : sequence
        Names that are not strings are not compared.
    what : str
        Of the names, in the plural, at the start of the message.

    Raises
    ------
    ValueError
        The message shows the two names.
    """
    for one, other in in_two_spellings(names):
        raise ValueError(
            f"{what} {one!r} and {other!r} differ only in case or spaces; write one of them as the "
            "other if they mean the same class, or give them other names."
        )


def in_two_spellings(names: Sequence) -> list[tuple[str, str]]:
    """Strings with the same normal form as an earlier one, after that one.

    Examples
    --------
    >>> in_two_spellings(["solid", "acinar", "Solid", 3])
    [('solid', 'Solid')]
    """
    first: dict[str, str] = {}
    texts = [name for name in names if isinstance(name, str)]
    pairs = [(first.setdefault(same_spelling(name), name), name) for name in texts]
    return [(one, other) for one, other in pairs if one != other]
