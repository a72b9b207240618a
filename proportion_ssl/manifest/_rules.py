"""Checks of columns (classes) and rows (records)."""

import shlex
from collections.abc import Sequence

import numpy as np

from proportion_ssl._checks import suggestion
from proportion_ssl.manifest._cells import looks_like_a_date
from proportion_ssl.manifest._records import (
    EXACT_SUM,
    SUM_TOLERANCE,
    Column,
    Records,
    choose_columns,
)
from proportion_ssl.manifest._rows import Finding, Rows

#: Deviation from 1 of the sum of a row that is written in fractions.
_FRACTION_TOLERANCE = 0.02

NO_RECORD = (
    "is a bag but has no proportions; give the percentage of every class, or the predominant one in a column "
    "'predominant'"
)


def unreadable(column: Column, rows: Rows) -> str:
    """Message about the cells of a column that are not percentages."""
    (row, text), *others = column.unreadable
    more = column.n_unreadable - len(column.unreadable)
    listed = [f"{rows.line(other)}: {said!r}" for other, said in others]
    listed += [f"{more} more"] * (more > 0)
    hint = ""
    if any(looks_like_a_date(said) for _, said in column.unreadable):
        hint = " Spreadsheet programs turn 10-12 into a date: format the column as text."
    return (
        f"{rows.place(row)} has {text!r} for class {column.name!r}"
        f"{' (also ' * bool(listed) + ', '.join(listed) + ')' * bool(listed)}; give a percentage"
        " from 0 to 100, written as 70, 70-80, <5, >90, ~10 or trace (or, if the column is not"
        f" a class, {rows.without_column()}).{hint}"
    )


def check_columns(
    rows: Rows, records: Records, widened: Records, names: list[str]
) -> tuple[list[int], list[Finding]]:
    """Columns that may be classes, and a finding for each other column."""
    kept, zero, breaking = choose_columns(records, widened)
    found = [names[k] for k in kept]
    advice = f"list the classes: classes={found}, on the command line --classes {shlex.join(found)}"
    wrong = dict.fromkeys(zero, "it is 0 in every record")
    if breaking:
        row, total = row_that_breaks(records, breaking)
        example = f"with it slide {rows.slides[row]!r} sums to {total:.10g}"
        wrong |= dict.fromkeys(breaking, f"without it the percentages sum to 100, {example}")
    return kept, [
        Finding(
            (),
            None,
            f"column {names[k]!r} does not look like a class: {wrong[k]}; {advice}, with"
            f" {names[k]!r} if it is one.",
        )
        for k in sorted(wrong)
        if records.of([k]).is_readable.all()  # otherwise already reported
    ]


def row_that_breaks(records: Records, breaking: list[int]) -> tuple[int, float]:
    """A row that columns keep from a sum of 100, if possible one of 100 without them, and its sum."""
    total = records.value.sum(axis=1)
    rest = total - records.value[:, breaking].sum(axis=1)
    is_record = records.is_recorded & records.is_filled_beside(breaking)
    is_off = is_record & (np.abs(total - 100) > EXACT_SUM)
    is_whole = is_off & (np.abs(rest - 100) <= EXACT_SUM)
    row = int(np.argmax(is_whole if is_whole.any() else is_off))
    return row, float(total[row])


def check_sums(rows: Rows, records: Records, classes: Sequence[str]) -> list[Finding]:
    """Find records that cannot sum to 100, or are fractions, whatever their stated error."""
    total = records.value.sum(axis=1)
    is_fraction = records.is_plain & (np.abs(total - 1) <= _FRACTION_TOLERANCE)
    wrong = records.is_recorded & records.is_readable & (~records.can_sum | is_fraction)
    findings = []
    for row in np.flatnonzero(wrong).tolist():
        lower, upper = records.lower[row].sum(), records.upper[row].sum()
        said = f"sum to {lower:.10g}"
        if is_fraction[row]:
            said = f"sum to {total[row]:.10g}"
        elif lower != upper:
            least = lower > 100
            bound = f"at least {lower:.4g}" if least else f"at most {upper:.4g}"
            said = f"sum to {bound} ({_recorded(records, row, classes)})"
        advice = f"they must sum to 100 within {SUM_TOLERANCE:g} point"
        if abs(total[row] - 1) <= _FRACTION_TOLERANCE:
            advice = "these look like fractions: give percent"
        elif lower == upper:
            advice += (
                " (or write ranges, or state their error: rounding_step= or standard_deviation=, on the"
                " command line --rounding-step or --standard-deviation)"
            )
        message = f"{rows.line(row)}: the percentages of {rows.name(row)} {said}; {advice}."
        findings.append(Finding((row,), rows.slides[row], message))
    return findings


def check_orders(rows: Rows, records: Records, classes: list[str]) -> list[Finding]:
    """Find orders with unknown or repeated classes, or that contradict the percentages of their row."""
    findings = []
    for row, order in enumerate(rows.orders):
        unknown = [name for name in order if name not in classes]
        if unknown:
            message = (
                f"has {unknown[0]!r} in the column predominant, which is not a class"
                f" ({', '.join(classes)}).{suggestion(unknown[0], classes)} Write one class, or several"
                f" separated by '>' with the most frequent first: {' > '.join(classes[:2])}."
            )
        elif len(set(order)) < len(order):
            message = (
                f"has predominant {' > '.join(order)!r}, which names a class twice; name each once."
            )
        elif _contradicts(order, records.take([row]), classes):
            message = (
                f"has predominant {' > '.join(order)!r}, but its percentages are"
                f" {_recorded(records, row, classes)}; correct one of the two."
            )
        else:
            continue
        findings.append(Finding((row,), rows.slides[row], f"{rows.place(row)} {message}"))
    return findings


def _recorded(records: Records, row: int, classes: Sequence[str]) -> str:
    """Recorded shares of a row, for messages; classes with share 0 are left out."""
    parts = []
    for k, name in enumerate(classes):
        lower, upper = records.lower[row, k], records.upper[row, k]
        if records.is_unknown[row, k]:
            parts.append(f"{name} unknown")
        elif upper > 0:
            parts.append(
                f"{name} {lower:.4g}" if lower == upper else f"{name} {lower:.4g} to {upper:.4g}"
            )
    return ", ".join(parts)


def _contradicts(order: Sequence[str], record: Records, classes: list[str]) -> bool:
    """Whether the intervals of a row admit no shares in the stated order."""
    if not record.is_recorded[0]:
        return False
    lower, upper = (part[0].tolist() for part in (record.lower, record.upper))
    named = [classes.index(name) for name in order]
    rest = [k for k in range(len(classes)) if k not in named]
    least = max((lower[k] for k in rest), default=0.0)
    for k in reversed(named):
        least = max(least, lower[k])
        if upper[k] < least:
            return True
    return False


def check_bags(rows: Rows, records: Records) -> list[Finding]:
    """Find bags without a record among slides without a case."""
    is_recorded = records.is_recorded
    return [
        Finding((row,), rows.slides[row], f"{rows.place(row)} {NO_RECORD}.")
        for row, (role, case) in enumerate(zip(rows.roles, rows.cases, strict=True))
        if role == "bag" and not case and not is_recorded[row] and not rows.orders[row]
    ]
