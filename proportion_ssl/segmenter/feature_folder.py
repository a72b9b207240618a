"""Training data from a manifest and a folder of feature files of another program."""

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
        Features of the recorded cases, read from their files on demand, with their proportions; None without
        records.
    groups : ndarray of str, shape (n_patches,)
        Case of each patch of `X`.
    cohort : CohortFeatures
        Windows and labels by slide, and slides that failed.
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
        A manifest, or the result of :func:`~proportion_ssl.load_cohort` with ``need_slides=False``.
    features : path-like
        Folder with one feature file per slide, of TRIDENT, CLAM, STAMP, slideflow or this package. Each file
        has the name of its slide.
    classes, rounding_step, standard_deviation
        Options for reading a manifest, as in :func:`~proportion_ssl.load_cohort`.

    Returns
    -------
    data : TrainingData

    Raises
    ------
    FileNotFoundError
        If the manifest, the folder or an outline file does not exist.
    ValueError
        If slides have no feature file, features were made in different ways, no slide can be used, or a
        class is not outlined.

    Notes
    -----
    Slides are opened only if they exist and the features lack information: the microns per pixel, which CLAM
    and STAMP do not store, if the column ``mpp`` is empty; and the scanned region of MRXS and SCN slides.
    Patches outlined as "non-cancer" are left out, and every patch of a recorded case counts as cancer. To
    propose the cancer patches, use :class:`~proportion_ssl.SlideSegmenter`.
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
    """Replace the slides of a cohort by the feature files of a folder.

    Parameters
    ----------
    cohort : Cohort
    features : path-like
        Folder; each file has the name of its slide.

    Returns
    -------
    joined : Cohort
        In ``slides``, ``path`` is the feature file and ``image`` the slide itself.

    Raises
    ------
    FeatureFileError
        If a slide has no feature file.
    """
    found = find_features(features)
    names = cohort.slides.index.tolist()
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FeatureFileError(
            f"{features} has no features of {', '.join(missing[:5])}{more}; it holds "
            f"{', '.join(list(found)[:3])}, ...: a feature file has the name of its slide"
        )
    slides = cohort.slides.assign(path=[found[name] for name in names])
    return replace(cohort, slides=slides.assign(image=cohort.slides["path"]))


def feature_file_of(name: str, features: str | PathLike[str]) -> Path:
    """The file of a slide in a folder of features.

    Parameters
    ----------
    name : str
        Name of the slide.
    features : path-like
        Folder.

    Returns
    -------
    path : Path

    Raises
    ------
    FeatureFileError
        If the folder has no file for the slide.
    """
    found = find_features(features)
    if name not in found:
        raise FeatureFileError(f"{features} has no features of {name}")
    return found[name]


def as_cohort(cohort: str | PathLike[str] | Cohort, features: Any = None, **options: Any) -> Cohort:
    """Read a cohort, and use the feature files of another program if `features` holds such files.

    Parameters
    ----------
    cohort : path-like or Cohort
    features : path-like, optional
        Folder of features.
    **options
        Options of :func:`~proportion_ssl.load_cohort`.

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
                f"{error}\nThe folder of features {features} was not found either."
            ) from None
    is_joined = "image" in cohort.slides or cohort.slides["path"].map(is_feature_name).all()
    return with_features(cohort, features) if is_foreign and not is_joined else cohort
