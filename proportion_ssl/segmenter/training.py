"""Labeled patches, tumor proposals and bags from slides with features."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from proportion_ssl._warnings import warn
from proportion_ssl.manifest import Cohort
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.proportions import OrderRecord, PartialRecord
from proportion_ssl.segmenter.slide_features import OutlinedPatches, SlideFeatures, is_feature_file
from proportion_ssl.slides import FeatureSequence, SlideFailure, open_slide, read_annotations

logger = logging.getLogger(__name__)

OUTLINE_THEM = (
    "Outline them in a labeled slide; or leave out the slides that are recorded with them, and their columns "
    "(classes=[...], on the command line --classes ...)"
)
KEEP_THEM = (
    "Lower min_tissue (--min-tissue), or give your own tissue mask (tissue_mask=, --tissue-masks)"
)


@dataclass(frozen=True, eq=False)
class CohortFeatures:
    """A cohort with the features of its slides, and the labels of the outlined slides.

    Parameters
    ----------
    cohort : Cohort
    slides : dict of str to SlideFeatures
        Slides with features, without those that failed.
    outlined : dict of str to OutlinedPatches
        Slides with outlines.
    failures : dict of str to SlideFailure
    learns_non_cancer : bool, default=False
        Whether "non-cancer" is a class of the classifier; see ``with_non_cancer_class``.
    """

    cohort: Cohort
    slides: Mapping[str, SlideFeatures]
    outlined: Mapping[str, OutlinedPatches]
    failures: Mapping[str, SlideFailure]
    learns_non_cancer: bool = False

    @property
    def learned(self) -> list[str]:
        """Classes that the classifier learns."""
        return [*self.cohort.classes, *([NON_CANCER] if self.learns_non_cancer else [])]

    @property
    def made_by(self) -> dict[str, Any]:
        """Settings of the features, the same for all slides."""
        return dict(next(iter(self.slides.values())).made_by)

    @property
    def labeled(self) -> list[str]:
        """Names of the outlined training slides."""
        return [name for name in self.cohort.labeled if name in self.outlined]

    def cases_of(self, names: Sequence[str]) -> np.ndarray:
        """Case of each of the slides."""
        return np.array([self.cohort.case_of(name) for name in names])

    def patches(
        self, names: Sequence[str], wanted: Sequence[str], *, all_views: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, labels and case of the patches with one of the wanted labels."""
        parts: list[tuple] = []
        for name in names:
            slide, labels = self.slides[name], self.outlined[name].labels
            keep = np.isin(labels.astype(str), wanted)
            X = slide.features if all_views else slide.first_view
            case = np.full(int(keep.sum()), self.cohort.case_of(name), dtype=object)
            parts.append((X[keep], labels[keep].astype(str), case))
        X, y, cases = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return X, y, cases.astype(str)


def with_non_cancer_class(data: CohortFeatures, proposer: Any) -> CohortFeatures:
    """The same data; without a proposer the classifier tells cancer from "non-cancer".

    "Non-cancer" is then a class of the classifier, and the records of the bags, which hold all tissue, are
    shares among the other classes (:class:`~proportion_ssl.proportions.PartialRecord`).

    Parameters
    ----------
    data : CohortFeatures
    proposer : TumorProposer or None

    Returns
    -------
    data : CohortFeatures
        ``learns_non_cancer`` is True if there is no proposer and "non-cancer" is outlined.
    """
    is_outlined = any(NON_CANCER in data.outlined[name].labels.tolist() for name in data.labeled)
    return replace(data, learns_non_cancer=proposer is None and is_outlined)


def fit_proposer(data: CohortFeatures, names: Sequence[str], proposer: Any) -> Any:
    """Fit the tumor proposer (cancer against non-cancer) on outlined slides.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Names of the training slides.
    proposer : TumorProposer or None

    Returns
    -------
    fitted : TumorProposer or None
        None if `proposer` is None, or if "non-cancer" or cancer is not outlined in these slides.
    """
    if proposer is None:
        return None
    X, y, cases = data.patches(names, [*data.cohort.classes, NON_CANCER], all_views=True)
    is_tumor = y != NON_CANCER
    if is_tumor.all() or not is_tumor.any():
        return None
    if len(np.unique(cases)) < 2:
        warn(
            "Only one case is outlined, so the threshold of tumor proposals is chosen on patches of that "
            "case and may miss tumor in other cases; outline a second case, or set "
            "proposer=TumorProposer(threshold=...).",
        )
        return clone(proposer).fit(X, is_tumor)
    return clone(proposer).fit(X, is_tumor, groups=cases)


def tumor_mask(slide: SlideFeatures, proposer: Any) -> np.ndarray:
    """Mask of the proposed tumor patches of a slide; all patches without a proposer."""
    if proposer is None:
        return np.ones(len(slide.grid), dtype=bool)
    return proposer.propose(np.asarray(slide.features)).is_tumor


def make_bags(data: CohortFeatures, proposer: Any) -> tuple[Any, list[str]]:
    """Make a bag of the tumor patches of each recorded case, with its proportions.

    Where the classifier learns "non-cancer", all patches, with the proportions of their cancer.

    Parameters
    ----------
    data : CohortFeatures
    proposer : TumorProposer or None

    Returns
    -------
    bags : Bags or None
        None if no case gives a bag.
    empty : list of str
        Cases without proposed tumor, which give no bag.
    """
    from proportion_ssl.proportions import Bags

    cohort = data.cohort
    parts: dict[str, list[tuple[SlideFeatures, np.ndarray]]] = {
        case: [] for case in cohort.bag_cases
    }
    for name in cohort.bags:
        case = cohort.case_of(name)
        if name in data.slides:
            slide = data.slides[name]
            parts[case].append((slide, tumor_mask(slide, proposer)))
        elif len(cohort.case_slides(case)) > 1:
            logger.warning("the bag of case %s lacks slide %s, which failed", case, name)
    sizes = {
        case: sum(int(mask.sum()) for _, mask in found) for case, found in parts.items() if found
    }
    empty = [case for case, size in sizes.items() if size == 0]
    kept = [case for case, size in sizes.items() if size]
    if not kept:
        return None, empty
    X, bag_ids = _instances({case: parts[case] for case in kept})
    if not data.learns_non_cancer and cohort.proportions.loc[kept].notna().all(axis=None):
        ends = {"lower": cohort.lower.loc[kept], "upper": cohort.upper.loc[kept]}
        return Bags(X, bag_ids, cohort.proportions.loc[kept], **ends), empty
    bags = Bags(X, bag_ids)
    record = weak_record(cohort, bags.names.tolist(), of_cancer=data.learns_non_cancer)
    return bags.with_record(record, data.learned), empty


def weak_record(
    cohort: Cohort, cases: Sequence[str], *, of_cancer: bool = False
) -> PartialRecord | OrderRecord:
    """Joint record of cases, some of which lack the share of every class.

    Parameters
    ----------
    cohort : Cohort
    cases : sequence of str
    of_cancer : bool, default=False
        Whether the bags hold "non-cancer" too, the last column, which the record says nothing about.

    Returns
    -------
    record : OrderRecord or PartialRecord
        An order if no case has proportions and all patches are cancer. Else shares; orders of the others
        become the widest intervals that they admit.
    """
    classes = cohort.classes
    ranks = np.zeros((len(cases), len(classes)), dtype=np.int64)
    is_order = np.array([case in cohort.orders for case in cases])
    for row in np.flatnonzero(is_order).tolist():
        order = cohort.orders[cases[row]]
        ranks[row] = [order.index(c) + 1 if c in order else len(order) + 1 for c in classes]
    if is_order.all() and not of_cancer:
        return OrderRecord(ranks)
    tables = (cohort.proportions, cohort.lower, cohort.upper)
    parts = [table.loc[list(cases)].to_numpy(dtype=float) for table in tables]
    among = ~np.isnan(parts[0])
    shares, lower, upper = (np.where(among, part, 0.0) for part in parts)
    among[is_order] = True
    bounds = OrderRecord(ranks[is_order]).bounds()
    shares[is_order], lower[is_order], upper[is_order] = bounds
    record = PartialRecord(shares, lower, upper, among)
    return record.with_columns(np.array([*range(len(classes)), -1])) if of_cancer else record


def _instances(
    parts: Mapping[str, list[tuple[SlideFeatures, np.ndarray]]],
) -> tuple[Any, list[str]]:
    """Selected patches of the cases: one array per case, or one sequence read from files on demand."""
    slides = [(case, slide, mask) for case, found in parts.items() for slide, mask in found]
    files = [slide.first_view for _, slide, _ in slides]
    if all(isinstance(rows, FeatureSequence) for rows in files):
        whole = FeatureSequence(
            {slide.name: rows.paths[0] for (_, slide, _), rows in zip(slides, files, strict=True)}
        )
        chosen = np.concatenate([mask for _, _, mask in slides])
        case_of = np.array([case for case, _, _ in slides])
        taken = whole.take(chosen)
        return taken, case_of[taken.slide_ids].tolist()
    arrays = [
        np.concatenate([np.asarray(slide.first_view[mask]) for slide, mask in found])
        for found in parts.values()
    ]
    return arrays, list(parts)


def check_every_class(data: CohortFeatures, names: Sequence[str]) -> None:
    """Raise unless the outlines of some slides show every class of the cohort.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Outlined slides.

    Raises
    ------
    ValueError
        Naming the classes without a labeled patch.
    """
    shown: set[str] = set()
    dropped: set[str] = set()
    for name in names:
        labels = data.outlined[name].labels
        shown.update(label for label in labels.tolist() if label is not None)
        dropped.update(data.outlined[name].missed)
    missing = sorted(set(data.cohort.classes) - shown)
    if outside := [label for label in missing if label in dropped]:
        raise ValueError(
            f"The tissue mask drops all patches outlined as {', '.join(outside)} in the labeled slides "
            f"{', '.join(names)}. {KEEP_THEM}."
        )
    _refuse_missing(missing, names, "patch", "labeled")


def check_outlined_classes(cohort: Cohort) -> None:
    """Raise if a class has no outline in the labeled slides, before slides are embedded for hours.

    Parameters
    ----------
    cohort : Cohort
        Not checked if a labeled slide is a feature file, or if it or its outlines cannot be read.

    Raises
    ------
    ValueError
        Naming the classes without outlines.
    """
    shown: set[str] = set()
    for name in cohort.labeled:
        row = cohort.slides.loc[name]
        if is_feature_file(row["path"]):
            return
        try:
            with open_slide(row["path"], mpp=None if np.isnan(row["mpp"]) else row["mpp"]) as slide:
                regions = read_annotations(row["annotation"], slide=slide)
        except (OSError, ValueError, ImportError):
            return
        shown.update(region.class_name for region in regions)
    _refuse_missing(sorted(set(cohort.classes) - shown), cohort.labeled, "outline", "named")


def _refuse_missing(missing: Sequence[str], names: Sequence[str], what: str, called: str) -> None:
    if missing:
        raise ValueError(
            f"No {what} of the labeled slides {', '.join(names)} is {called} {', '.join(missing)}, so "
            f"these classes cannot be learned. {OUTLINE_THEM}."
        )


def fit_classifier(
    data: CohortFeatures, names: Sequence[str], bags: Any, classifier: Any, records: bool = True
) -> Any:
    """A classifier of the classes that are learned, from outlined slides and bags.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Outlined training slides.
    bags : Bags or None
    classifier : estimator
        Its ``fit`` has the signature of the classifiers of this package.
    records : bool, default=True
        Whether the bags are used.

    Returns
    -------
    fitted : estimator
    """
    X, y, cases = data.patches(names, data.learned)
    classifier = clone(classifier)
    groups: np.ndarray | None = cases
    if any(len(np.unique(cases[y == label])) < 2 for label in np.unique(y)):
        logger.info(
            "a class is outlined in one case only: the validation set consists of patches instead of cases"
        )
        groups = None
    if "classes" in classifier.get_params():  # bags may teach classes without outlines
        classifier.set_params(classes=data.learned)
        return classifier.fit(X, y, bags if records else None, groups=groups)
    check_every_class(data, names)
    return classifier.fit(X, y, bags if records else None, groups=groups)


def dropped_table(outlined: Mapping[str, OutlinedPatches]) -> pd.DataFrame:
    """Share of the outlined area that the tissue mask dropped, by slide and class.

    Parameters
    ----------
    outlined : dict of str to OutlinedPatches

    Returns
    -------
    table : DataFrame
        One row per slide, one column per class; NaN if a class is not outlined.
    """
    rows = {name: dict(patches.dropped) for name, patches in outlined.items()}
    return pd.DataFrame(rows).T.rename_axis("slide")
