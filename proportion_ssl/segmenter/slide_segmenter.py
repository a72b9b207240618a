"""Estimator for the whole workflow: from a cohort of slides to segmented slides and a reusable model."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._checks import check_intervals
from proportion_ssl._sklearn import HasMethods, Interval, StrOptions
from proportion_ssl.colors import class_colors
from proportion_ssl.manifest import Cohort
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.segmenter import model_file
from proportion_ssl.segmenter.calibration import Calibration, calibrate, leave_out
from proportion_ssl.segmenter.cross_validation import cross_validate_cases
from proportion_ssl.segmenter.evaluation import Evaluation
from proportion_ssl.segmenter.feature_folder import as_cohort, feature_file_of
from proportion_ssl.segmenter.prediction import evaluate_models, models_of, segment_features
from proportion_ssl.segmenter.preparation import Preparation, check_made_by
from proportion_ssl.segmenter.slide_features import (
    is_feature_file,
    read_slide_features,
    warn_of_nominal,
)
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation
from proportion_ssl.segmenter.stain_reference import find_reference
from proportion_ssl.segmenter.systems import System
from proportion_ssl.segmenter.training import (
    CohortFeatures,
    check_every_class,
    dropped_table,
    fit_classifier,
    fit_proposer,
    make_bags,
    with_non_cancer_class,
)
from proportion_ssl.slides import (
    CohortRun,
    ReinhardNormalizer,
    magnification_to_mpp,
    open_slide,
    process_slides,
    write_table,
)
from proportion_ssl.slides.features.batch import named_slides
from proportion_ssl.slides.features.folder import is_foreign_folder

logger = logging.getLogger(__name__)

OVERVIEW_PIXELS = 1600
"""Longer side of the overviews of slides, in pixels."""


class SlideSegmenter(BaseEstimator):
    """Segment whole slides by subtype, trained on a few outlined slides and many with class proportions only.

    ``fit`` divides the tissue of every slide into patches, normalizes colors to a reference slide, embeds
    each patch at several magnifications, labels patches from the outlines, selects the tumor patches of the
    other slides, and trains a classifier on labeled patches and bags. ``segment`` processes a new slide in
    the same way.

    Parameters
    ----------
    classifier : classifier of this package, default=None
        Trained on labeled patches and bags. Default:
        :class:`~proportion_ssl.RobustProportionClassifier`, the best on the development cohorts.
    embedder : transformer, default=None
        Computes features of images, and has a method ``fingerprint()``. Default:
        :class:`~proportion_ssl.PatchEmbedder` with ImageNet weights.
    magnifications : sequence of float, default=(10, 5, 2.5)
        Patches lie side by side at the first magnification, whose features the classifier uses. The tumor
        proposer uses all magnifications.
    patch_size : int, default=224
        Side of a patch in pixels, at every magnification.
    stride : int or None, default=None
        Step in pixels between the patches that ``segment`` classifies; must divide `patch_size`. A smaller
        stride gives a finer map: overlapping patches are averaged, and the side of a map cell is the
        stride. None: `patch_size`. Training and evaluation use patches without overlap.
    normalizer : stain normalizer, "default" or None
        "default": :class:`~proportion_ssl.slides.ReinhardNormalizer`, fitted on the first outlined
        slide that can be read; None: no normalization.
    proposer : TumorProposer, "default" or None
        "default": a :class:`~proportion_ssl.TumorProposer` on all magnifications. None: the classifier learns
        "non-cancer" as a further class from its outlines, bags contain all tissue, and records are shares of
        the cancer in it. Without outlines of "non-cancer", all tissue patches are used as tumor.
    smoothing : float or None, default=None
        Weight of neighboring patches in the maps, as in
        :func:`~proportion_ssl.segmenter.smooth_probabilities`, among patches of tumor; 0: no smoothing.
        None: :meth:`calibrate` chooses it on left-out outlined slides, and before that it is 0.
    min_tissue : float in (0, 1], default=0.25
        Minimum share of tissue in a patch.
    tissue_mask : mapping of str to path-like or ndarray, default=None
        Your own tissue masks by slide name, instead of those of the package: images, or
        arrays of shape (height, width), that cover the whole slide at any resolution; non-zero is tissue.
    n_jobs : int or None, default=None
        Number of slides and folds processed in parallel, as in joblib.
    random_state : int or None, default=None
        Seed of the default classifier and proposer.
    verbose : bool, default=False
        Whether to show progress bars.

    Attributes
    ----------
    classes_ : list of str
        Classes of the cohort. Maps also have "non-cancer" if it is outlined.
    classifier_ : classifier
    proposer_ : TumorProposer or None
    models_ : Models
        Models used for prediction: classifier and proposer, or equivalent linear maps.
    normalizer_ : stain normalizer or None
        Fitted normalizer. A further call of ``fit`` keeps it, so that the colors of a growing cohort stay
        the same.
    reference_slide_ : str or None
        Slide on which the normalizer was fitted.
    embedder_ : transformer
        Only if slides were read, not only feature files.
    features_ : str
        Description of the features.
    made_by_ : dict
        Required origin of features: fingerprint of the embedder, magnifications, patch size.
    colors_ : dict of str to (red, green, blue)
    temperature_ : float
        Temperature of the class probabilities; 1 before :meth:`calibrate`.
    smoothing_ : float
        Weight of neighboring patches in the maps.
    proportion_errors_ : ndarray of shape (n_classes,) or None
        Errors of predicted proportions on left-out slides; None before :meth:`calibrate`.
    failures_ : dict of str to SlideFailure
        Slides that could not be used, by name.
    dropped_ : DataFrame
        Share of the outlined area that the tissue mask dropped, by slide and class.
    empty_cases_ : list of str
        Recorded cases without a patch of tumor.
    n_slides_, n_patches_ : int
        Number of slides and patches that were read.

    See Also
    --------
    proportion_ssl.load_cohort : The table of slides that ``fit`` takes.

    Notes
    -----
    The steps follow Tokunaga et al. [1]_: patches of 224 pixels at 10x, tumor proposals by a net
    that sees 10x, 5x and 2.5x, cross-validation by slide. The default classifier is a different one.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using Class Proportion for
       Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> from proportion_ssl import SlideSegmenter
    >>> segmenter = SlideSegmenter(magnifications=(10,), patch_size=112)
    >>> segmenter.get_params()["patch_size"]
    112
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        "classifier": [HasMethods(["fit", "predict_proba"]), None],
        "embedder": [HasMethods(["transform", "fingerprint"]), None],
        "magnifications": ["array-like"],
        "patch_size": [Interval(Integral, 1, None, closed="left")],
        "stride": [Interval(Integral, 1, None, closed="left"), None],
        "normalizer": [StrOptions({"default"}), HasMethods(["fit", "estimate"]), None],
        "proposer": [StrOptions({"default"}), HasMethods(["fit", "propose"]), None],
        "smoothing": [Interval(Real, 0, None, closed="left"), None],
        "min_tissue": [Interval(Real, 0, 1, closed="right")],
        "tissue_mask": [HasMethods("keys"), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        classifier: Any = None,
        *,
        embedder: Any = None,
        magnifications: Sequence[float] = (10, 5, 2.5),
        patch_size: int = 224,
        stride: int | None = None,
        normalizer: Any = "default",
        proposer: Any = "default",
        smoothing: float | None = None,
        min_tissue: float = 0.25,
        tissue_mask: Mapping[str, Any] | None = None,
        n_jobs: int | None = None,
        random_state: int | None = None,
        verbose: bool = False,
    ):
        self.classifier = classifier
        self.embedder = embedder
        self.magnifications = magnifications
        self.patch_size = patch_size
        self.stride = stride
        self.normalizer = normalizer
        self.proposer = proposer
        self.smoothing = smoothing
        self.min_tissue = min_tissue
        self.tissue_mask = tissue_mask
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    _is_loaded = (
        False  # a file holds the fitted models instead of the parameters classifier and proposer
    )

    # --- fitting ------------------------------------------------------------------------------

    def fit(
        self, cohort: str | PathLike | Cohort, *, features: str | PathLike | None = None
    ) -> Self:
        """Train on the outlined and the recorded slides of a cohort.

        Parameters
        ----------
        cohort : path-like or Cohort
            A manifest, or the result of :func:`~proportion_ssl.load_cohort`. Slides may be feature files
            (``.h5``) instead of images.
        features : path-like, optional
            Folder for the features of slides and the color reference. A further call embeds only new slides,
            and continues an interrupted call. Default: nothing is kept. Alternatively, a folder with a
            feature file of TRIDENT, CLAM, STAMP or slideflow per slide. These are used directly, and the
            slides need not exist.

        Returns
        -------
        self : SlideSegmenter

        Raises
        ------
        ValueError
            If the cohort lacks training data for a class; the message says what is missing.
        proportion_ssl.embedding.WeightsNotAvailableError
            If the default embedder finds no weights.
        """
        cohort = as_cohort(cohort, features)
        with _folder(features) as folder:
            data = self.read_cohort(cohort, features=folder, slides=cohort.labeled + cohort.bags)
        return self.fit_features(data)

    def read_cohort(
        self,
        cohort: str | PathLike | Cohort,
        *,
        features: str | PathLike,
        slides: Sequence[str] | None = None,
    ) -> CohortFeatures:
        """Features and labels of slides of a cohort; embeds slides that have no features yet.

        Parameters
        ----------
        cohort : path-like or Cohort
        features : path-like
            Folder of the features, as in :meth:`fit`.
        slides : sequence of str, optional
            Names of the slides. Default: all slides.

        Returns
        -------
        data : CohortFeatures
            Input of :meth:`fit_features` and similar methods, so that several fits share it.
        """
        self._check_parameters()
        cohort = as_cohort(cohort, features)
        names = cohort.slides.index.tolist() if slides is None else list(slides)
        self._prepare(cohort, names, Path(features))
        return self._preparation().read(cohort, names, Path(features))

    def fit_features(self, data: CohortFeatures) -> Self:
        """Same as :meth:`fit`, on features and labels from :meth:`read_cohort`.

        Parameters
        ----------
        data : CohortFeatures
            From :meth:`read_cohort`; slides of the role "test" are not used.

        Returns
        -------
        self : SlideSegmenter
        """
        if not data.labeled:
            reasons = "".join(f"\n- {failure}" for failure in data.failures.values())
            raise ValueError(
                "No outlined slide of the role 'labeled' can be used, so there is nothing to learn from."
                + reasons
            )
        check_every_class(data, data.labeled)
        data = with_non_cancer_class(data, self._make_proposer(data))
        proposer = fit_proposer(data, data.labeled, self._make_proposer(data))
        bags, empty = make_bags(data, proposer)
        if empty:
            logger.warning(
                "no tumor was proposed, so these cases give no bag: %s", ", ".join(empty)
            )
        classifier = fit_classifier(data, data.labeled, bags, self._make_classifier())
        self._models = {"classifier": classifier, "proposer": proposer}
        self.temperature_ = 1.0
        self.smoothing_ = 0.0 if self.smoothing is None else float(self.smoothing)
        self.models_ = replace(models_of(classifier, proposer), smoothing=self.smoothing_)
        self.proportion_errors_: np.ndarray | None = None
        self.classes_ = list(data.cohort.classes)
        self.colors_ = class_colors([*self.classes_, NON_CANCER])
        self.made_by_, self.failures_ = data.made_by, dict(data.failures)
        self.features_ = _describe_features(getattr(self, "embedder_", None), self.made_by_)
        self.dropped_ = dropped_table(data.outlined)
        self.empty_cases_ = empty
        self.n_slides_ = len(data.slides)
        self.n_patches_ = sum(len(slide.grid) for slide in data.slides.values())
        return self

    def calibrate(
        self,
        cohort: str | PathLike | Cohort,
        folds: int = 5,
        *,
        features: str | PathLike | None = None,
    ) -> Calibration:
        """Calibrate probabilities and intervals of proportions on left-out slides.

        A part of the outlined and recorded cases is left out in turn; proposer and classifier are trained
        on the others and predict these cases. The temperature is fitted to the left-out outlines (or to the
        records, if there are too few outlines). Segmentations then have ``proportion_intervals``. Unless
        `smoothing` is a number, the weight of neighboring patches is chosen on the left-out outlines.

        Parameters
        ----------
        cohort : path-like or Cohort
            Cohort of the fit.
        folds : int, default=5
        features : path-like, optional
            As in :meth:`fit`.

        Returns
        -------
        calibration : Calibration
            Also lists which recorded cases to outline next and which records to read again.

        Raises
        ------
        ValueError
            If fewer than two cases can be left out.
        """
        check_is_fitted(self, "classes_")
        cohort = as_cohort(cohort, features)
        with _folder(features) as folder:
            data = self.read_cohort(cohort, features=folder, slides=cohort.labeled + cohort.bags)
        return self.calibrate_features(data, folds)

    def calibrate_features(
        self, data: CohortFeatures, folds: int = 5, *, records: bool = True
    ) -> Calibration:
        """Same as :meth:`calibrate`, on features and labels from :meth:`read_cohort`.

        Parameters
        ----------
        data : CohortFeatures
        folds : int, default=5
        records : bool, default=True
            Whether the classifier is trained on recorded proportions.

        Returns
        -------
        calibration : Calibration
        """
        check_is_fitted(self, "classes_")
        proposer = self._make_proposer(data)
        left_out = leave_out(
            with_non_cancer_class(data, proposer),
            proposer,
            self._make_classifier(),
            folds,
            records=records,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        found = calibrate(data, left_out, smoothing=self.smoothing)
        self.temperature_, self.proportion_errors_ = found.temperature, found.proportion_errors
        self.smoothing_ = float(found.smoothing)
        self.models_ = replace(
            self.models_, temperature=found.temperature, smoothing=self.smoothing_
        )
        return found

    @property
    def classifier_(self) -> Any:
        """Fitted classifier; from a loaded file it is restored, with torch, on first access."""
        return self._model("classifier")

    @property
    def proposer_(self) -> Any:
        """Fitted tumor proposer or None; from a loaded file it is restored on first access."""
        return self._model("proposer")

    def _model(self, name):
        if "_models" not in vars(self):
            raise AttributeError(
                f"{name}_ exists only after fit; this SlideSegmenter is not fitted."
            )
        if isinstance(self._models[name], bytes):
            self._models[name] = model_file.restore_model(self._models[name])
        return self._models[name]

    def _make_classifier(self):
        if self.classifier is not None:
            return self.classifier
        if self._is_loaded:
            return clone(self.classifier_)
        from proportion_ssl.estimators import RobustProportionClassifier

        return RobustProportionClassifier(random_state=self.random_state)

    def _make_proposer(self, data):
        if not isinstance(self.proposer, str):
            return self.proposer
        if self._is_loaded:
            return None if self.proposer_ is None else clone(self.proposer_)
        from proportion_ssl.estimators import TumorProposer
        from proportion_ssl.nets import MultiFieldOfViewNet

        n_views = len(data.made_by["magnifications"])
        return TumorProposer(MultiFieldOfViewNet(n_views, random_state=self.random_state or 0))

    def _prepare(self, cohort: Cohort, names: list[str], folder: Path) -> None:
        """Set embedder and color reference, unless an earlier fit has set them."""
        rows = cohort.slides.loc[names]
        images = rows[~rows["path"].map(is_feature_file).astype(bool)]
        if images.empty:
            self.normalizer_ = getattr(self, "normalizer_", None)
            self.reference_slide_ = getattr(self, "reference_slide_", None)
            return
        self._find_embedder()
        if self.normalizer is None:
            self.normalizer_ = self.reference_slide_ = None
            return
        is_named = isinstance(self.normalizer, str)
        outlined = images[images["role"] == "labeled"]
        candidates = images if outlined.empty else outlined
        self.normalizer_, self.reference_slide_ = find_reference(
            ReinhardNormalizer() if is_named else clone(self.normalizer),
            (getattr(self, "normalizer_", None), getattr(self, "reference_slide_", None)),
            folder,
            [(row.Index, row.path, _number(row.mpp)) for row in candidates.itertuples()],
            magnification=self.magnifications[0],
            size=self.patch_size,
            min_tissue=self.min_tissue,
        )

    def _find_embedder(self) -> None:
        if self.embedder is not None:
            self.embedder_ = self.embedder
        elif not hasattr(self, "embedder_"):
            from proportion_ssl.embedding import PatchEmbedder

            self.embedder_ = PatchEmbedder()
        self.embedder_.fingerprint()  # raises if weights are missing, before any slide is opened

    def _preparation(self) -> Preparation:
        return Preparation(
            embedder=getattr(self, "embedder_", None),
            magnifications=tuple(float(m) for m in self.magnifications),
            patch_size=self.patch_size,
            normalizer=self.normalizer_,
            min_tissue=self.min_tissue,
            tissue_mask=dict(self.tissue_mask or {}),
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def _check_parameters(self) -> None:
        self._validate_params()
        self._check_stride()
        for magnification in self.magnifications:
            magnification_to_mpp(magnification)

    def _check_stride(self) -> None:
        if self.stride is not None and self.patch_size % self.stride:
            raise ValueError(
                f"stride={self.stride} does not divide patch_size={self.patch_size}, so windows would not "
                "align with the cells of the map."
            )

    # --- segmenting ---------------------------------------------------------------------------

    def segment(
        self,
        slide: str | PathLike,
        *,
        proportions: Mapping[str, float] | pd.Series | pd.DataFrame | None = None,
        mpp: float | None = None,
        name: str | None = None,
        features: str | PathLike | None = None,
        reject_below: float | None = None,
    ) -> SlideSegmentation:
        """Segment one slide, processed like the slides of the fit.

        Parameters
        ----------
        slide : path-like
            Slide, or feature file of the same kind as in the fit.
        proportions : mapping of str to float, or DataFrame, optional
            Recorded proportions by class, fractions that sum to 1, or a DataFrame of classes by ``share``,
            ``lower`` and ``upper``. The prediction uses them, see
            :func:`~proportion_ssl.pseudo_labels.probabilities_given_records`, and ``used_record`` is then
            True.
        mpp : float, optional
            Microns per level-0 pixel, for a slide or feature file that does not state them.
        name : str, optional
            Name of the slide. Default: the file name without its last suffix.
        features : path-like, optional
            Folder for the features. Default: nothing is kept. Alternatively the folder of another program's
            features, as in :meth:`fit`; the slide then need not exist.
        reject_below : float in [0, 1], optional
            Cells with a largest probability below this value are "uncertain" and do not count in the
            proportions; see :meth:`proportion_ssl.segmenter.SlideSegmentation.reject`.

        Returns
        -------
        segmentation : SlideSegmentation

        Raises
        ------
        SlideError
            If the slide cannot be read, has no tissue, or does not state its resolution.
        ValueError
            If the embedder or a feature file differs from those of the fit.
        """
        check_is_fitted(self, "classes_")
        path = Path(slide)
        name = path.stem if name is None else name
        recorded = None if proportions is None else self._check_record(proportions, name)
        if is_feature_file(path):
            data = read_slide_features(path, name, mpp=mpp)
            warn_of_nominal([name] * data.is_nominal)
            return self._segment(data, None, recorded, reject_below)
        if features is not None and is_foreign_folder(features):
            stored = feature_file_of(name, features)
            data = read_slide_features(stored, name, mpp=mpp, image=path)
            warn_of_nominal([name] * data.is_nominal)
            overview = _overview(path, mpp) if path.exists() else None
            return self._segment(data, overview, recorded, reject_below)
        overview = _overview(path, mpp)
        with _folder(features) as folder:
            run = self._embed({name: path}, folder, {} if mpp is None else {name: mpp})
            run.check("raise")
            data = read_slide_features(run.results[name], name)
        return self._segment(data, overview, recorded, reject_below)

    def segment_cohort(
        self,
        cohort: str | PathLike | Cohort | Sequence[str | PathLike],
        output: str | PathLike,
        *,
        features: str | PathLike | None = None,
        slides: Sequence[str] | None = None,
        proportions: Mapping[str, Any] | None = None,
        mpp: float | None = None,
        reject_below: float | None = None,
    ) -> CohortRun:
        """Segment many slides and write the files of each, in parallel with joblib or Dask.

        Parameters
        ----------
        cohort : path-like, Cohort or sequence of path-like
            A cohort, or a sequence of slide files. Slides of the role "bag" are segmented with their record;
            records of test slides are not used in the prediction, only compared with it.
        output : path-like
            Folder of the files that :meth:`proportion_ssl.segmenter.SlideSegmentation.write` makes;
            ``slides.csv`` holds one row per slide.
        features : path-like, optional
            As in :meth:`fit`.
        slides : sequence of str, optional
            Names of the slides to segment. Default: slides of a cohort with the role "test", or the whole
            sequence.
        proportions : mapping of str to mapping or DataFrame, optional
            Recorded proportions by slide name, in the form of :meth:`segment`, for a sequence of files. The
            predictions of these slides use them.
        mpp : float, optional
            Microns per level-0 pixel, for a sequence of files that do not state them.
        reject_below : float in [0, 1], optional
            As in :meth:`segment`.

        Returns
        -------
        run : CohortRun
            ``results``: :class:`~proportion_ssl.segmenter.SlideSegmentation` by slide; ``failures``:
            slides that could not be segmented.
        """
        run, nominal = self._segment_cohort(
            cohort,
            output,
            features=features,
            slides=slides,
            proportions=proportions,
            mpp=mpp,
            reject_below=reject_below,
        )
        warn_of_nominal(nominal)
        return run

    def _segment_cohort(
        self,
        cohort,
        output,
        *,
        features=None,
        slides=None,
        proportions=None,
        mpp=None,
        reject_below=None,
    ) -> tuple[CohortRun, list[str]]:
        """As :meth:`segment_cohort`; also the names of the slides whose resolution is nominal."""
        check_is_fitted(self, "classes_")
        entries = _entries(cohort, slides, proportions, mpp, features)
        output = Path(output)
        output.mkdir(parents=True, exist_ok=True)
        with _folder(features) as folder:
            images = {n: e.path for n, e in entries.items() if not is_feature_file(e.path)}
            known = {n: e.mpp for n, e in entries.items() if e.mpp is not None and n in images}
            run = self._embed(images, folder, known) if images else CohortRun({}, {})

            def write(entry):
                data = read_slide_features(
                    run.results.get(entry.name, entry.path),
                    entry.name,
                    mpp=None if entry.name in images else entry.mpp,
                    image=entry.image,
                )
                image = entry.path if entry.name in images else entry.image
                is_there = image is not None and Path(image).exists()
                overview = _overview(Path(image), entry.mpp) if is_there else None
                record = entry.recorded
                record = None if record is None else self._check_record(record, entry.name)
                segmentation = self._segment(data, overview, record, reject_below, entry.use_record)
                segmentation.write(output)
                return segmentation, data.is_nominal

            left = {name: entry for name, entry in entries.items() if name not in run.failures}
            written = process_slides(left, write, on_error="skip", verbose=self.verbose)
        results = {name: segmentation for name, (segmentation, _) in written.results.items()}
        if results:
            write_table(output / "slides.csv", [one.row() for one in results.values()])
        nominal = [name for name, (_, is_nominal) in written.results.items() if is_nominal]
        return CohortRun(results, {**run.failures, **written.failures}), nominal

    def _embed(self, paths, folder, mpp) -> CohortRun:
        """Features of new slides, with the settings of the fit."""
        self._check_stride()
        if not hasattr(self, "embedder_"):
            if self.embedder is None:
                raise ValueError(
                    "This model was fitted on feature files, or saved without its network, so it "
                    "cannot embed a slide: pass embedder=, the embedder that made those features."
                )
            self.embedder_ = self.embedder
        fingerprint = self.embedder_.fingerprint()
        if fingerprint != self.made_by_["embedder"]:
            raise ValueError(
                f"The embedder differs from that of the fit: its fingerprint begins with {fingerprint[:12]}, "
                f"that of the fit with {str(self.made_by_['embedder'])[:12]}."
            )
        stride = None if self.stride == self.patch_size else self.stride
        return self._preparation().embed(paths, folder, mpp=mpp, stride=stride)

    def _segment(
        self, slide, overview, recorded, reject_below, use_record=True
    ) -> SlideSegmentation:
        check_made_by(slide, self.made_by_, "those of the fit")
        segmentation = segment_features(
            slide,
            self.models_,
            classes=self.classes_,
            colors=self.colors_,
            overview=overview,
            recorded=recorded,
            features=self.features_,
            proportion_errors=self.proportion_errors_,
            use_record=use_record,
        )
        return segmentation if reject_below is None else segmentation.reject(reject_below)

    def _check_record(self, proportions, name) -> pd.DataFrame:
        """Recorded shares of all classes with their intervals, in the order of the classes."""
        if isinstance(proportions, pd.DataFrame):
            recorded = proportions.astype(float)
        else:
            exact = pd.Series(proportions, dtype=float)
            recorded = pd.DataFrame({"share": exact, "lower": exact, "upper": exact})
        unknown = sorted(set(recorded.index) - set(self.classes_))
        if unknown:
            raise ValueError(
                f"proportions have {unknown}, which are not classes of this model: {self.classes_}."
            )
        recorded = recorded.reindex(self.classes_, fill_value=0.0)
        lower, upper, share = (recorded[[c]].to_numpy().T for c in ("lower", "upper", "share"))
        check_intervals(lower, upper, [name], share)
        return recorded

    # --- judging ------------------------------------------------------------------------------

    def evaluate(
        self,
        cohort: str | PathLike | Cohort,
        *,
        features: str | PathLike | None = None,
        slides: Sequence[str] | None = None,
    ) -> Evaluation:
        """Score slides with outlines, by slide and by case.

        Parameters
        ----------
        cohort : path-like or Cohort
        features : path-like, optional
            As in :meth:`fit`.
        slides : sequence of str, optional
            Names. Default: slides of the role "test". Slides without outlines have only a proportion error.

        Returns
        -------
        evaluation : Evaluation

        Raises
        ------
        ValueError
            If none of the slides can be used, or none has outlines or a record.
        """
        check_is_fitted(self, "classes_")
        cohort = as_cohort(cohort, features)
        names = list(cohort.test if slides is None else slides)
        if not names:
            raise ValueError("The cohort has no slide with the role 'test'; give slides=[...].")
        with _folder(features) as folder:
            data = self.read_cohort(cohort, features=folder, slides=names)
        return self.evaluate_features(data, names)

    def evaluate_features(self, data: CohortFeatures, slides: Sequence[str]) -> Evaluation:
        """Same as :meth:`evaluate`, on features and labels from :meth:`read_cohort`.

        Parameters
        ----------
        data : CohortFeatures
        slides : sequence of str

        Returns
        -------
        evaluation : Evaluation
        """
        check_is_fitted(self, "classes_")
        used = {name: data.slides[name] for name in slides if name in data.slides}
        outlined = {name: data.outlined[name] for name in used if name in data.outlined}
        cases = sorted({data.cohort.case_of(name) for name in used})
        if not outlined and data.cohort.proportions.loc[cases].isna().all(axis=None):
            raise ValueError(
                "None of these slides has outlines or recorded proportions to compare with."
            )
        for slide in used.values():
            check_made_by(slide, self.made_by_, "those of the fit")
        return evaluate_models(data, list(used), self.models_)

    def cross_validate(
        self,
        cohort: str | PathLike | Cohort,
        folds: int = 5,
        *,
        features: str | PathLike | None = None,
        systems: Mapping[str, System] | None = None,
    ) -> pd.DataFrame:
        """Scores on left-out outlined cases; each fold trains a new proposer and classifier.

        Parameters
        ----------
        cohort : path-like or Cohort
        folds : int, default=5
            Maximum number of folds. Whole cases are left out, so that there are at most as many folds as
            outlined cases.
        features : path-like, optional
            As in :meth:`fit`.
        systems : mapping of str to System, optional
            Systems to compare on the same folds and proposals. Default: the classifier of this segmenter.

        Returns
        -------
        scores : DataFrame
            One row per fold and system: ``system``, ``fold``, ``cases`` left out, and the scores of
            :class:`~proportion_ssl.segmenter.Evaluation`.

        Raises
        ------
        ValueError
            If fewer than two outlined cases can be used.
        """
        cohort = as_cohort(cohort, features)
        with _folder(features) as folder:
            data = self.read_cohort(cohort, features=folder, slides=cohort.labeled + cohort.bags)
        return self.cross_validate_features(data, folds, systems=systems)

    def cross_validate_features(
        self, data: CohortFeatures, folds: int = 5, *, systems: Mapping[str, System] | None = None
    ) -> pd.DataFrame:
        """Same as :meth:`cross_validate`, on features and labels from :meth:`read_cohort`.

        Parameters
        ----------
        data : CohortFeatures
        folds : int, default=5
        systems : mapping of str to System, optional

        Returns
        -------
        scores : DataFrame
        """
        proposer = self._make_proposer(data)
        return cross_validate_cases(
            with_non_cancer_class(data, proposer),
            proposer,
            {"classifier": System(self._make_classifier())} if systems is None else systems,
            folds,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    # --- files --------------------------------------------------------------------------------

    def save(self, path: str | PathLike, *, network: bool = True) -> None:
        """Write all that is needed to segment new slides to one file, which contains no code.

        Parameters
        ----------
        path : str or path-like
            An existing file is replaced atomically.
        network : bool, default=True
            Whether the file contains the network, exported for OpenVINO, so that applying the
            model needs neither torch nor weights. False: the file contains only the fingerprint of the
            embedder, and ``load`` needs the same embedder. A segmenter without ``embedder_``, such as one
            fitted on feature files, has no network to write; its file segments feature files of the same
            kind.

        Raises
        ------
        proportion_ssl.embedding.NotInstalledError
            If `network` is True, the segmenter has an embedder, and OpenVINO is not installed.
        TypeError, ValueError
            If a part cannot be written: an embedder without ``export``, or a normalizer or classifier
            of another package. The message names it.

        See Also
        --------
        load : Read the file.
        """
        check_is_fitted(self, "classes_")
        model_file.write(self, path, network=network)

    @classmethod
    def load(cls, path: str | PathLike, *, embedder: Any = None) -> SlideSegmenter:
        """Read a segmenter that :meth:`save` wrote.

        Parameters
        ----------
        path : str or path-like
        embedder : transformer, optional
            Used instead of the network of the file; required if the file has none. Its fingerprint must equal
            that of the fit.

        Returns
        -------
        segmenter : SlideSegmenter
            Fitted. ``segment`` imports torch only if classifier or proposer are not linear maps
            of the features.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        proportion_ssl.persistence.ModelFileError
            If the file is damaged, has another version, or was not written by :meth:`save`.
        ValueError
            If `embedder` differs from that of the fit.
        """
        return model_file.read(cls, path, embedder=embedder)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_network_file", None)  # the process that unpacked the network removes it
        return state


class _Entry(NamedTuple):
    """A slide to segment."""

    name: str
    path: Any
    mpp: float | None
    recorded: Any  # in the form of `segment`, or None
    image: Any = None  # the slide, if `path` is a feature file of another program
    use_record: bool = True


def _overview(path: Path, mpp: float | None) -> np.ndarray:
    """Image of a whole slide."""
    with open_slide(path, mpp=mpp) as slide:
        longer_um = max(slide.dimensions) * slide.mpp
        return slide.thumbnail(max(longer_um / OVERVIEW_PIXELS, slide.mpp))


def _entries(cohort, slides, proportions, mpp, features) -> dict[str, _Entry]:
    if not isinstance(cohort, Cohort | str | PathLike):
        names = named_slides(cohort)
        chosen = names if slides is None else {name: names[name] for name in slides}
        known = {} if proportions is None else proportions
        stored: dict[str, Path] = {}
        if features is not None and is_foreign_folder(features):
            images = [name for name, path in chosen.items() if not is_feature_file(path)]
            stored = {name: feature_file_of(name, features) for name in images}
        return {
            name: _Entry(
                *(name, stored.get(name, path), mpp, known.get(name)),
                image=path if name in stored else None,
            )
            for name, path in chosen.items()
        }
    if proportions is not None or mpp is not None:
        raise ValueError("A cohort has its own proportions and resolutions; leave them out.")
    cohort = as_cohort(cohort, features)
    entries = {}
    for name in cohort.test if slides is None else slides:
        row = cohort.slides.loc[name]
        tables = {"share": cohort.proportions, "lower": cohort.lower, "upper": cohort.upper}
        record = pd.DataFrame({part: table.loc[row["case"]] for part, table in tables.items()})
        alone = len(cohort.case_slides(row["case"])) == 1  # a record describes the whole case
        recorded = record if alone and record.notna().all(axis=None) else None
        entries[name] = _Entry(
            *(name, row["path"], _number(row["mpp"]), recorded),
            image=row.get("image"),
            use_record=row["role"] == "bag",
        )
    return entries


@contextmanager
def _folder(features: str | PathLike | None) -> Iterator[Path]:
    """The given folder, or a temporary one."""
    if features is not None:
        yield Path(features)
        return
    with TemporaryDirectory(prefix="proportion_ssl_") as folder:
        yield Path(folder)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _describe_features(embedder: Any, made_by: Mapping[str, Any]) -> str:
    """Description of the features, for reports."""
    name = made_by["embedder"]
    is_named = isinstance(name, str) and re.fullmatch("[0-9a-f]{64}", name) is None
    stored = f"features of {name}" if is_named else "features"
    known = f"{stored} from files" if embedder is None else " ".join(repr(embedder).split())
    shown = " + ".join(f"{m:g}x" for m in made_by["magnifications"])
    return f"{known}, {made_by['size']} pixels at {shown}"
