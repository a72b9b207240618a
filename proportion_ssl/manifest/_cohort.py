"""Content of a manifest: slides, their roles and cases, and the records of the cases."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

#: Names of outlines that are not classes of cancer, which alone have recorded shares.
NON_CANCER, VAGUE = "non-cancer", "vague"


@dataclass(frozen=True)
class Cohort:
    """Slides with their roles and cases, and the recorded proportions of the cases.

    Attributes
    ----------
    slides : DataFrame
        Indexed by slide id (file name without its last suffix), in the order of the manifest; columns
        ``path`` (Path), ``annotation`` (Path or None), ``role`` ("labeled", "bag" or "test"), ``mpp``
        (microns per pixel, NaN where not stated) and ``case`` (id of the patient or tumor; the slide's own id
        where the manifest names no case).
    proportions : DataFrame
        Fractions (percentages / 100) by case id (rows, in order of occurrence) and class (columns). Rows
        without a record are NaN; the others sum to 1 within 0.01. A single NaN in a row: the share of that
        class is unknown, and the numbers are shares among the other classes.
    lower, upper : DataFrame
        Same rows and columns: the interval of each fraction, equal to `proportions` where these are
        exact. ``lower <= proportions <= upper``; NaN where `proportions` is.
    classes : list of str
        Classes, in the order of the columns of `proportions`.
    orders : dict of str to tuple of str
        For cases without proportions: the recorded predominant class, or several, the most frequent first.

    Notes
    -----
    A recorded row belongs to its case. All slides of a case have the same role. The bag of a case consists of
    the patches of all its slides (`case_slides`). When splitting the cohort, keep the slides of a case
    together (`cases`). Without a column ``case`` every slide is a case with the slide's id, so that
    ``proportions.loc[slide]`` is the record of the slide.
    """

    slides: pd.DataFrame
    proportions: pd.DataFrame
    lower: pd.DataFrame
    upper: pd.DataFrame
    classes: list[str]
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def _with_role(self, role: str) -> list[str]:
        return self.slides.index[self.slides["role"] == role].tolist()

    @property
    def labeled(self) -> list[str]:
        """Ids of the outlined training slides."""
        return self._with_role("labeled")

    @property
    def bags(self) -> list[str]:
        """Ids of the slides with known proportions only."""
        return self._with_role("bag")

    @property
    def test(self) -> list[str]:
        """Ids of the slides to predict."""
        return self._with_role("test")

    @property
    def cases(self) -> pd.Series:
        """Case id of each slide, indexed by slide id."""
        return self.slides["case"]

    @property
    def bag_cases(self) -> list[str]:
        """Ids of the cases with a slide of role "bag", without duplicates."""
        return self.slides.loc[self.slides["role"] == "bag", "case"].unique().tolist()

    def case_of(self, slide: str) -> str:
        """Id of the case that a slide belongs to."""
        return self.slides.at[slide, "case"]

    def case_slides(self, case: str) -> list[str]:
        """Ids of all slides of a case, in the order of the manifest."""
        found = self.slides.index[self.slides["case"] == case].tolist()
        if not found:
            raise KeyError(f"the cohort has no case {case!r}.")
        return found
