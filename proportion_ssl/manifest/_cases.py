"""Checks of cases: all slides of a case share one role, one record and one name."""

import numpy as np
import pandas as pd

from proportion_ssl.manifest._records import Records
from proportion_ssl.manifest._rows import ROLES, Finding, Rows, plain_name
from proportion_ssl.manifest._rules import NO_RECORD


def check_cases(rows: Rows, records: Records) -> list[Finding]:
    """Find cases that leak from training to testing, and contradictory records of a case."""
    named = np.flatnonzero([bool(case) for case in rows.cases])
    if not len(named):
        return []
    of_row, cases = pd.factorize(np.array([rows.cases[row] for row in named], dtype=object))
    in_order = named[np.argsort(of_row, kind="stable")]
    members = np.split(in_order, np.cumsum(np.bincount(of_row))[:-1])
    role = np.array([ROLES.index(role) if role in ROLES else -1 for role in rows.roles])[named]
    n_outlined, n_bags, n_tested = (
        np.bincount(of_row[role == k], minlength=len(cases)) for k in range(len(ROLES))
    )
    is_recorded = records.is_recorded | np.array([bool(order) for order in rows.orders])
    n_recorded = np.bincount(of_row[is_recorded[named]], minlength=len(cases))
    wrong = {
        "no record": (n_bags > 0) & (n_recorded == 0),
        "leak": (n_tested > 0) & (n_outlined + n_bags > 0),
        "shared": (n_outlined > 0) & (n_bags > 0),
        "contradiction": _contradictions(records.take(named), of_row, len(cases))
        | _differing_orders([rows.orders[row] for row in named], of_row, len(cases)),
    }
    findings = _check_case_names(rows, dict(zip(cases.tolist(), members, strict=True)))
    for k in np.flatnonzero(np.any(list(wrong.values()), axis=0)).tolist():
        own = members[k].tolist()
        labeled, bags, tested = ([row for row in own if rows.roles[row] == role] for role in ROLES)
        recorded = [row for row in own if is_recorded[row]]
        messages = {
            "no record": f"{rows.place(own[0])} {NO_RECORD}, in a row of case {cases[k]!r}.",
            "leak": (
                f"case {cases[k]!r} is used for training ({rows.places(labeled + bags)}) and for testing"
                f" ({rows.places(tested)}); use all its slides for one of the two."
            ),
            "shared": (
                f"case {cases[k]!r} has outlined slides ({rows.places(labeled)}) and bags"
                f" ({rows.places(bags)}). The record would leak when the outlined slides are left out in"
                " cross-validation; remove one of the two kinds."
            ),
            "contradiction": (
                f"the rows of case {cases[k]!r} contradict each other ({rows.places(recorded)}); a"
                " record describes the whole case: repeat it or give it once. If records describe"
                " single slides, leave the case of bags empty."
            ),
        }
        slide = rows.slides[own[0]] if len(own) == 1 else None
        findings += [
            Finding(tuple(own), slide, messages[kind]) for kind, found in wrong.items() if found[k]
        ]
    return findings


def _contradictions(records: Records, case: np.ndarray, n_cases: int) -> np.ndarray:
    """Mask of cases with two different records, shape (n_cases,)."""
    recorded = np.flatnonzero(records.is_recorded & records.is_readable)
    first = np.zeros(n_cases, dtype=int)
    first[case[recorded[::-1]]] = recorded[::-1]
    other = first[case[recorded]]
    differs = np.any([(part[recorded] != part[other]).any(axis=1) for part in records[:3]], axis=0)
    return np.bincount(case[recorded[differs]], minlength=n_cases) > 0


def _differing_orders(orders: list[tuple], case: np.ndarray, n_cases: int) -> np.ndarray:
    """Mask of cases with two different orders of classes, shape (n_cases,)."""
    first: dict[int, tuple] = {}
    differs = np.zeros(n_cases, dtype=bool)
    for order, k in zip(orders, case.tolist(), strict=True):
        if order and first.setdefault(k, order) != order:
            differs[k] = True
    return differs


def _check_case_names(rows: Rows, members: dict[str, np.ndarray]) -> list[Finding]:
    """Find similar names of possibly one case, and slides without a case that are named like a case."""
    findings = []
    first: dict[str, str] = {}
    for case, own in members.items():
        before = first.setdefault(plain_name(case), case)
        if before != case:
            both = (*members[before].tolist(), *own.tolist())
            message = (
                f"cases {before!r} and {case!r} ({rows.places(both)}) differ in upper and lower"
                " case or in the encoding of accents; spell a case in one way."
            )
            findings.append(Finding(both, None, message))
    for row, (slide, case) in enumerate(zip(rows.slides, rows.cases, strict=True)):
        if not case and slide in members:
            own = members[slide].tolist()
            message = (
                f"{rows.place(row)} has no case, but {slide!r} is the case of"
                f" {rows.places(own)}; give its case too, or rename that case."
            )
            findings.append(Finding((row, *own), slide, message))
    return findings
