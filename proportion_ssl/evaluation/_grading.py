"""Predominant pattern and grade of a tumor, as reported by pathologists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from proportion_ssl._checks import GUARD, check_fraction
from proportion_ssl.evaluation._codes import columns_in_order


@dataclass(frozen=True)
class GradingScheme:
    """Rules to derive a grade from the shares of the patterns.

    Parameters
    ----------
    name : str
    by_predominant : mapping of str to int
        Grade by predominant pattern, used while the share of high-grade patterns is below the cutoff.
    high_grade : tuple of str
        High-grade patterns, whose shares are added.
    cutoff : float in (0, 1]
        Share of high-grade patterns from which the tumor has the grade ``highest``.
    highest : int
        Grade at or above the cutoff, or if a high-grade pattern predominates.
    aliases : mapping of str to str
        Other names of patterns.

    Examples
    --------
    >>> from dataclasses import replace
    >>> replace(IASLC_2020, cutoff=0.10).cutoff
    0.1
    """

    name: str
    by_predominant: Mapping[str, int]
    high_grade: tuple[str, ...]
    cutoff: float
    highest: int
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        check_fraction(self.cutoff, "cutoff", closed="right")

    def knows(self, names: Sequence[str]) -> bool:
        """Return whether all of these classes are patterns of the scheme.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        knows : bool

        Examples
        --------
        >>> IASLC_2020.knows(["lepidic", "Micro-papillary"]), IASLC_2020.knows(["normal"])
        (True, False)
        """
        try:
            return len([self.pattern(str(name)) for name in names]) > 0
        except ValueError:
            return False

    def pattern(self, name: str) -> str:
        """Name of a class in this scheme.

        Parameters
        ----------
        name : str
            In upper or lower case, with spaces, hyphens or underscores.

        Returns
        -------
        pattern : str

        Raises
        ------
        ValueError
            If the scheme has no such pattern.
        """
        plain = " ".join(name.lower().replace("-", " ").replace("_", " ").split())
        plain = self.aliases.get(plain, plain)
        if plain not in self.by_predominant and plain not in self.high_grade:
            known = [*self.by_predominant, *self.high_grade]
            raise ValueError(
                f"{self.name} has no grade for {name!r}; it knows {', '.join(known)}. Rename the class or "
                "pass your own GradingScheme."
            )
        return plain


IASLC_2020 = GradingScheme(
    name="IASLC 2020",
    by_predominant={"lepidic": 1, "acinar": 2, "papillary": 2},
    high_grade=("solid", "micropapillary", "cribriform", "complex glandular"),
    cutoff=0.20,
    highest=3,
    aliases={"micro papillary": "micropapillary", "complex glands": "complex glandular"},
)
"""Grades of invasive non-mucinous adenocarcinoma of the lung: Moreira et al., "A Grading System for Invasive
Pulmonary Adenocarcinoma", J. Thorac. Oncol. 15 (2020), 1599-1610."""


def predominant_class(proportions: Any, classes: Sequence | None = None) -> np.ndarray:
    """Class with the largest share of each tumor.

    Parameters
    ----------
    proportions : array-like or DataFrame of shape (n_tumors, n_classes)
        Shares in [0, 1] of the whole tumor; pool the patches of all its slides first.
    classes : sequence of n_classes names, optional
        Default: columns of a DataFrame, or positions.

    Returns
    -------
    predominant : ndarray of object, shape (n_tumors,)
        None if a share is NaN or there is no cancer. Among equal shares (within 1e-9), the first class is
        returned.

    Raises
    ------
    ValueError
        If shapes are inconsistent or a share lies outside [0, 1].

    Examples
    --------
    >>> predominant_class([[0.3, 0.7], [0.5, 0.5]], ["acinar", "solid"]).tolist()
    ['solid', 'acinar']
    """
    shares, names = _shares(proportions, classes)
    known = ~np.isnan(shares).any(axis=1) & (shares.sum(axis=1) > 0)
    first = (shares >= shares.max(axis=1, keepdims=True) - GUARD).argmax(axis=1)
    found = np.full(len(shares), None, dtype=object)
    found[known] = np.array(names, dtype=object)[first[known]]
    return found


def grade(
    proportions: Any, scheme: GradingScheme = IASLC_2020, *, classes: Sequence[str] | None = None
) -> np.ndarray:
    """Grade of each tumor from the shares of its patterns.

    Parameters
    ----------
    proportions : array-like or DataFrame of shape (n_tumors, n_classes)
        As in :func:`predominant_class`.
    scheme : GradingScheme, default=IASLC_2020
    classes : sequence of n_classes str, optional
        Patterns of the scheme. Default: columns of a DataFrame.

    Returns
    -------
    grades : ndarray of object, shape (n_tumors,)
        int, or None where the predominant class is None.

    Raises
    ------
    ValueError
        If the scheme does not know a class, or shares are not in [0, 1].

    Examples
    --------
    >>> shares = [[0.70, 0.15, 0.15], [0.30, 0.60, 0.10], [0.40, 0.40, 0.20]]
    >>> grade(shares, classes=["lepidic", "acinar", "solid"]).tolist()
    [1, 2, 3]
    """
    shares, names = _shares(proportions, classes)
    patterns = [scheme.pattern(str(name)) for name in names]
    predominant = predominant_class(shares, patterns)
    is_high = np.array([pattern in scheme.high_grade for pattern in patterns])
    high = shares[:, is_high].sum(axis=1)
    grades = np.full(len(shares), None, dtype=object)
    for i, pattern in enumerate(predominant):
        if pattern is not None:
            is_highest = high[i] >= scheme.cutoff - GUARD
            usual = scheme.by_predominant.get(pattern, scheme.highest)
            grades[i] = scheme.highest if is_highest else usual
    return grades


def _shares(proportions, classes):
    names = getattr(proportions, "columns", None) if classes is None else classes
    proportions = columns_in_order(proportions, classes, "proportions")
    shares = np.asarray(proportions, dtype=np.float64)
    if shares.ndim != 2:
        raise ValueError(
            f"proportions must have shape (n_tumors, n_classes), got {shares.shape}; for one tumor "
            "give [shares]."
        )
    names = list(range(shares.shape[1])) if names is None else list(names)
    if len(names) != shares.shape[1]:
        raise ValueError(
            f"classes has {len(names)} names, but there are {shares.shape[1]} classes; give one per column."
        )
    check_fraction(shares[~np.isnan(shares)], "proportions")
    return shares, names
