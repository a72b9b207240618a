"""Cohorts whose features another program made: from a folder and a table to what ``fit`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from proportion_ssl.manifest import Cohort, load_cohort
from proportion_ssl.segmenter.preparation import Preparation
from proportion_ssl.segmenter.training import CohortFeatures, check_every_class, make_bags
from proportion_ssl.slides import FeatureFileError, find_features
from proportion_ssl.slides.features.folder import is_foreign_folder
from proportion_ssl.slides.features.formats.registry import is_feature_name


class TrainingData(NamedTuple):
    """Arguments of ``fit`` of the classifiers of this package: ``model.fit(*data[:3], groups=data.groups)``.

    Attributes
    ----------
    X : ndarray of shape (n_patches, n_features), float32
        Features of the outlined patches.
    y : ndarray of str, shape (n_patches,)
        Their classes.
    bags : Bags or None
        Features of the recorded cases with their proportions, left in their files; None without records.
    groups : ndarray of str, shape (n_patches,)
        Case of each patch of `X`.
    cohort : CohortFeatures
        All that was read: windows and labels by slide, slides that failed.
    """

    X: np.ndarray
    y: np.ndarray
    bags: Any
    groups: np.ndarray
    cohort: CohortFeatures


def read_training_data(
    cohort: str | PathLike[str] | Cohort,
    features: str | PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    rounding_step: float | None = None,
    standard_deviation: float | None = None,
) -> TrainingData:
    """Labeled patches and bags from a folder of features, outlines and a table of proportions.

    Parameters
    ----------
    cohort : path-like or Cohort
        A manifest, or what :func:`~proportion_ssl.load_cohort` returns with ``need_slides=False``.
    features : path-like
        Folder with a feature file per slide, of TRIDENT, CLAM, STAMP, slideflow or this package, named as
        the slide.
    classes, rounding_step, standard_deviation
        Of a manifest, as in :func:`~proportion_ssl.load_cohort`.

    Returns
    -------
    data : TrainingData

    Raises
    ------
    FileNotFoundError
        If the manifest, the folder or outlines do not exist.
    ValueError
        If slides have no feature file, features were made in different ways, no slide can be used, or a
        class is not outlined.

    Notes
    -----
    Slides are opened only where they exist and features do not say enough: the microns per pixel that CLAM
    and STAMP do not state and the column ``mpp`` does not give, and the scanned part of MRXS and SCN slides.
    Patches outlined as "non-cancer" are left out; every patch of a recorded case counts as cancer.
    :class:`~proportion_ssl.SlideSegmenter` proposes the cancer instead.
    """
    if not isinstance(cohort, Cohort):
        cohort = load_cohort(
            cohort,
            classes=classes,
            rounding_step=rounding_step,
            standard_deviation=standard_deviation,
            need_slides=False,
        )
    joined = with_features(cohort, features)
    reader = Preparation(None, (), 0, None, 0.0, {}, None, False)
    data = reader.read(joined, joined.labeled + joined.bags, Path(features))
    if not data.labeled:
        reasons = "".join(f"\n- {failure}" for failure in data.failures.values())
        raise ValueError(f"No outlined slide of the role 'labeled' can be used.{reasons}")
    check_every_class(data, data.labeled)
    bags, _ = make_bags(data, None)
    X, y, groups = data.patches(data.labeled, joined.classes)
    return TrainingData(X, y, bags, groups, data)


def with_features(cohort: Cohort, features: str | PathLike[str]) -> Cohort:
    """The cohort with the feature files of a folder in place of its slides.

    Parameters
    ----------
    cohort : Cohort
    features : path-like
        Folder; files are named as the slides.

    Returns
    -------
    joined : Cohort
        Its ``slides`` have the feature files as ``path``, the slides themselves as ``image``.

    Raises
    ------
    FeatureFileError
        If slides have no file.
    """
    found = find_features(features)
    names = cohort.slides.index.tolist()
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FeatureFileError(
            f"{features} has no features of {', '.join(missing[:5])}{more}; it holds "
            f"{', '.join(list(found)[:3])}, ...: a feature file is named as its slide"
        )
    slides = cohort.slides.assign(path=[found[name] for name in names])
    return replace(cohort, slides=slides.assign(image=cohort.slides["path"]))


def feature_file_of(name: str, features: str | PathLike[str]) -> Path:
    """The file of a slide in a folder of features.

    Parameters
    ----------
    name : str
        Of the slide.
    features : path-like
        Folder.

    Returns
    -------
    path : Path

    Raises
    ------
    FeatureFileError
        If there is none.
    """
    found = find_features(features)
    if name not in found:
        raise FeatureFileError(f"{features} has no features of {name}")
    return found[name]


def as_cohort(cohort: str | PathLike[str] | Cohort, features: Any = None, **options: Any) -> Cohort:
    """A cohort from a manifest; with the files of `features` if that holds features of another program.

    Parameters
    ----------
    cohort : path-like or Cohort
    features : path-like, optional
        Folder of features.
    **options
        Of :func:`~proportion_ssl.load_cohort`.

    Returns
    -------
    cohort : Cohort
    """
    is_foreign = features is not None and is_foreign_folder(features)
    if not isinstance(cohort, Cohort):
        try:
            cohort = load_cohort(cohort, need_slides=not is_foreign, **options)
        except FileNotFoundError as error:
            if features is None or Path(features).is_dir():
                raise
            raise FileNotFoundError(
                f"{error}\nNor is there a folder {features} of features to take in place of the slides."
            ) from None
    is_joined = "image" in cohort.slides or cohort.slides["path"].map(is_feature_name).all()
    return with_features(cohort, features) if is_foreign and not is_joined else cohort
