"""Replace the names of slides and cases by numbers, and write the key that maps them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from proportion_ssl.manifest import Cohort
from proportion_ssl.slides import write_table


def key_path(output: Path) -> Path:
    """Path of the key: beside the output folder, so that the folder can be shared without it."""
    return output.with_name(f"{output.name}_key.csv")


def numbers(names: Iterable[str], word: str) -> dict[str, str]:
    """Map each name to a numbered name, in the given order.

    Parameters
    ----------
    names : iterable of str
    word : str
        "slide" or "case".

    Returns
    -------
    numbered : dict of str to str

    Examples
    --------
    >>> numbers(["Smith 1", "Jones 2"], "slide")
    {'Smith 1': 'slide_1', 'Jones 2': 'slide_2'}
    """
    distinct = list(dict.fromkeys(names))
    digits = len(str(len(distinct)))
    return {name: f"{word}_{i:0{digits}d}" for i, name in enumerate(distinct, 1)}


def anonymize_cohort(
    cohort: Cohort, masks: Mapping[str, Any] | None, output: Path
) -> tuple[Cohort, dict[str, Any] | None]:
    """Replace the names of a cohort by numbers, and write the key beside the output folder.

    Parameters
    ----------
    cohort : Cohort
    masks : mapping of str to mask, or None
        Tissue masks by slide.
    output : Path
        Folder of the run.

    Returns
    -------
    anonymous : Cohort
        Slides and cases are numbered in the order of the manifest. Paths are unchanged.
    masks : dict of str to mask, or None
        Tissue masks by numbered slide.
    """
    slides = numbers(cohort.slides.index, "slide")
    cases = numbers(cohort.slides["case"], "case")
    table = cohort.slides.rename(index=slides).assign(case=cohort.slides["case"].map(cases).values)
    write_key(output, cohort.slides.index, list(slides.values()), cohort.slides["case"], cases)
    anonymous = replace(
        cohort,
        slides=table,
        proportions=cohort.proportions.rename(index=cases),
        lower=cohort.lower.rename(index=cases),
        upper=cohort.upper.rename(index=cases),
        orders={cases[case]: order for case, order in cohort.orders.items()},
    )
    if masks is not None:
        masks = {slides[name]: mask for name, mask in masks.items() if name in slides}
    return anonymous, masks


def write_key(
    output: Path,
    names: Sequence[str],
    numbered: Sequence[str],
    cases: Sequence[str] | None = None,
    case_numbers: Mapping[str, str] | None = None,
) -> None:
    """Write the key, one line per slide.

    Parameters
    ----------
    output : Path
        Folder of the run; the key is written beside it.
    names, numbered : sequence of str
        Original and numbered names of the slides.
    cases : sequence of str, optional
        Case of each slide.
    case_numbers : mapping of str to str, optional
        Numbered name of each case.
    """
    key = pd.DataFrame({"number": list(numbered), "slide": list(names)})
    if cases is not None and case_numbers is not None:
        key["case_number"] = [case_numbers[case] for case in cases]
        key["case"] = list(cases)
    path = key_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, key)
