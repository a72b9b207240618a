"""HTML report of a run: scores, slides with label maps, proportions, rounds, settings."""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from proportion_ssl._atomic import replacing
from proportion_ssl._checks import check_intervals, check_shares
from proportion_ssl._version import __version__
from proportion_ssl.reporting._outlook import ReportOutlook, view_outlook
from proportion_ssl.reporting._pictures import (
    NO_PATCH,
    label_map_uri,
    thumbnail_uri,
    value_map_uri,
)
from proportion_ssl.reporting._rounds import draw_counts, draw_lines, has_counts, read_history
from proportion_ssl.reporting._scores import EXPLAINED, figure, score_table
from proportion_ssl.reporting._test_slides import ReportTest, view_test

#: Packages whose versions are listed.
PACKAGES = (
    *("numpy", "scipy", "pandas", "scikit-learn", "torch", "torchvision", "skorch"),
    *("large-image", "tifffile", "imagecodecs", "shapely", "h5py", "Pillow"),
)
LONGEST_SETTING = 2000  # characters

Color = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ReportSlide:
    """Content of a report on one slide.

    Parameters
    ----------
    name : str
        Name of the slide; any characters.
    thumbnail : ndarray of shape (height, width, 3), uint8
        Image of the whole slide. Images larger than 1600 pixels are reduced.
    prediction : array-like of int, shape (n_rows, n_columns)
        Predicted class of each patch, an index of the report's ``classes``; -1: no patch. See
        :func:`proportion_ssl.slides.stitch`.
    truth : array-like of int, shape (n_rows, n_columns), optional
        True class of each patch; -1: unknown.
    recorded, predicted : array-like of shape (n_classes,) or mapping of str to float, optional
        Recorded and predicted proportions, which sum to 1 (dimensionless). An array is in the order of
        ``classes``; a mapping or Series may omit classes without proportions, such as non-cancer.
    lower, upper : array-like of shape (n_classes,) or mapping of str to float, optional
        Intervals of the recorded proportions, such as those of :class:`~proportion_ssl.Bags`; both or
        neither. With intervals recorded proportions need not sum to 1, and errors are measured from the
        nearest share in the interval.
    metrics : mapping of str to float, optional
        Scores of this slide.
    doubt : float, optional
        How doubtful the prediction is; slides are sorted by decreasing doubt. Default: the sum absolute error
        of the predicted proportions.
    cell_pixels : float, optional
        Side of one cell of the maps in pixels of ``thumbnail``, both with the origin in the upper left
        corner. Default: the maps cover the thumbnail.
    mpp : float, optional
        Microns per pixel of ``thumbnail``, for a scale bar.
    probability, uncertainty : array-like of float, shape (n_rows, n_columns), optional
        Further layers, in [0, 1]; NaN: no patch.
    others : mapping of str to array-like of int, shape (n_rows, n_columns), optional
        Predictions of other systems by name, as layers for comparison.
    intervals : mapping of str to (low, high), optional
        Intervals of the predicted proportions by class, in [0, 1].
    facts : mapping of str to str, optional
        Short facts about the slide, such as the predominant class.
    used_record : bool, default=False
        Whether the prediction used the record; the slide is then listed separately, without an error.

    Examples
    --------
    >>> import numpy as np
    >>> thumbnail = np.full((60, 80, 3), 230, dtype=np.uint8)
    >>> slide = ReportSlide("slide 7", thumbnail, [[0, 1, -1], [1, 1, -1]], cell_pixels=25)
    >>> slide.name
    'slide 7'
    """

    name: str
    thumbnail: np.ndarray
    prediction: ArrayLike
    truth: ArrayLike | None = None
    recorded: ArrayLike | Mapping[str, float] | None = None
    predicted: ArrayLike | Mapping[str, float] | None = None
    lower: ArrayLike | Mapping[str, float] | None = None
    upper: ArrayLike | Mapping[str, float] | None = None
    metrics: Mapping[str, float] | None = None
    doubt: float | None = None
    cell_pixels: float | None = None
    mpp: float | None = None
    probability: ArrayLike | None = None
    uncertainty: ArrayLike | None = None
    others: Mapping[str, ArrayLike] | None = None
    intervals: Mapping[str, tuple[float, float]] | None = None
    facts: Mapping[str, str] | None = None
    used_record: bool = False


def report(
    path: str | Path,
    *,
    slides: Iterable[ReportSlide],
    classes: Sequence[str],
    test: ReportTest | None = None,
    outlook: ReportOutlook | None = None,
    metrics: Any = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    history_classes: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    colors: Mapping[str, Color] | None = None,
    title: str = "Segmentation report",
    features: str = "",
) -> Path:
    """Write an HTML report of a run on one page.

    The page is self-contained and works offline. It shows the scores with their spread, every slide with
    label maps that can be switched, faded and zoomed, recorded and predicted proportions with the most
    doubtful slides first, the pseudo labels of each round, the settings, and the versions of the packages.

    Parameters
    ----------
    path : str or Path
        File to write; an existing file is replaced once the page is complete.
    slides : iterable of ReportSlide
        May be empty. Names must differ.
    classes : sequence of str, at most 255
        Class names of the label maps, in the order of their indices.
    test : ReportTest, optional
        Results on test slides; they are shown first.
    outlook : ReportOutlook, optional
        Expected gain from more outlines, and slides to review next.
    metrics : DataFrame, or mapping of str to float or array-like of shape (n_repeats,), optional
        One column per score and one row per fold or other repetition; a column "system" names the compared
        systems.
    history : list of dict, optional
        ``history_`` of a fitted :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    history_classes : sequence of str, optional
        ``classes_`` of that classifier, the order of its counts. Required if the history has counts.
    settings : mapping of str to object, optional
        For example ``get_params()`` of the classifier; shown by ``repr``.
    colors : mapping of str to (red, green, blue), optional
        Colors by class, 0..255; by default those of the paper's Figure 5 for its classes, distinct ones for
        others.
    title : str, default="Segmentation report"
    features : str, default=""
        Description of the features, for the head of the page.

    Returns
    -------
    path : Path

    Raises
    ------
    ValueError
        If arrays do not match, a value is out of range, or two slides have the same name; the message names
        the slide.
    TypeError
        If an argument has a wrong type.

    Notes
    -----
    Spread is the sample standard deviation (divisor n - 1) over the rows of ``metrics``, or over the slides
    for their own scores. Doubt is the sum absolute error of
    :func:`~proportion_ssl.proportions.sum_absolute_error`; slides at its maximum of 1 are ordered by the
    unclipped sum.

    Names are escaped, and a content security policy prevents the page from loading anything and from running
    other scripts. Thumbnails take at most 250 kB each, so a page with 40 slides stays below 15 MB.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> slide = ReportSlide(
    ...     "slide 7",
    ...     np.full((60, 80, 3), 230, dtype=np.uint8),
    ...     prediction=[[0, 1, -1], [1, 1, -1]],
    ...     recorded=[0.5, 0.5],
    ...     predicted=[0.25, 0.75],
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report(
    ...         f"{folder}/run.html",
    ...         slides=[slide],
    ...         classes=["acinar", "solid"],
    ...         metrics={"mIoU": [0.61, 0.65, 0.63]},
    ...     )
    ...     "0.630 ± 0.020" in page.read_text(encoding="utf-8")
    True
    """
    classes = _check_classes(classes, "classes")
    slides = [_check_slide(slide, classes) for slide in _check_slides(slides)]
    palette = _palette(classes, colors)
    own_scores = [slide.metrics for slide in slides if slide.metrics]
    with_maps = _occurring(slides, classes)
    groups = [
        (
            used,
            [
                _view(s, classes, palette)
                for s in _most_doubtful_first(slides)
                if s.used_record == used
            ],
        )
        for used in (False, True)
    ]
    views = [view for _, group in groups for view in group]
    page = {
        **view_test(test, classes),
        **view_outlook(outlook),
        "features": str(features),
        "occurring": with_maps,
        "groups": [(used, group) for used, group in groups if group],
        "spreadsheet": _spreadsheet(views, classes),
        "layer_names": list(dict.fromkeys(name for v in views for _, name, _ in v["layers"])),
        "metrics_explained": _explained(metrics, own_scores),
        "title": str(title),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "classes": classes,
        "scores": None if metrics is None else score_table(metrics),
        "slide_scores": score_table(pd.DataFrame(own_scores), system=None) if own_scores else None,
        "slides": views,
        "metric_names": list(dict.fromkeys(name for scores in own_scores for name in scores)),
        "doubt_is_given": any(slide.doubt is not None for slide in slides),
        **_rounds(history, history_classes, classes),
        "settings": [] if settings is None else _check_settings(settings),
        "versions": versions(),
    }
    path = Path(path)
    content = _render(page, palette).encode("utf-8", errors="backslashreplace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def versions() -> list[tuple[str, str]]:
    """Names and versions of this package, Python and the main dependencies."""
    found = [("proportion_ssl", __version__), ("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append((name, "not installed"))
    return [*found, ("platform", platform.platform())]


# --- input checks -------- ------------------------------------------------------------------------


class _Checked(NamedTuple):
    """A slide with checked values."""

    name: str
    thumbnail: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray | None
    recorded: dict[str, float] | None
    predicted: dict[str, float] | None
    ends: dict[str, tuple[float, float]]  # intervals of the recorded shares, if stated
    metrics: dict[str, float]
    doubt: float | None
    error: float | None  # unclipped sum of absolute differences of the proportions
    cell_pixels: float | None
    mpp: float | None
    values: dict[str, np.ndarray]
    others: dict[str, np.ndarray]
    intervals: dict[str, tuple[float, float]]
    facts: dict[str, str]
    used_record: bool

    @property
    def unsure(self):
        """Mean uncertainty of the patches, or None."""
        values = self.values.get("uncertainty")
        return None if values is None or np.isnan(values).all() else float(np.nanmean(values))

    @property
    def shown_error(self):
        """Sum absolute error, equation 2."""
        return None if self.error is None else min(1.0, self.error)


def _check_classes(classes, what):
    if isinstance(classes, str):
        raise TypeError(f"{what} must be a sequence of names, got the string {classes!r}.")
    names = list(classes)
    if not names or len(names) > NO_PATCH:
        raise ValueError(f"{what} must hold 1 to {NO_PATCH} names, got {len(names)}.")
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{what} must hold names (str), got {names}.")
    names = [str(name) for name in names]
    _check_distinct(names, what)
    return names


def _check_distinct(names, what):
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what}: names must be unique, but {twice} occur more than once.")


def _check_slides(slides):
    slides = list(slides)
    for i, slide in enumerate(slides):
        if not isinstance(slide, ReportSlide):
            hint = ": call its report_slide(classes)" if hasattr(slide, "report_slide") else ""
            raise TypeError(f"slides[{i}] must be a ReportSlide, got {type(slide).__name__}{hint}.")
        if not isinstance(slide.name, str):
            raise TypeError(f"slides[{i}].name must be a str, got {slide.name!r}.")
    _check_distinct([slide.name for slide in slides], "slides")
    with_doubt = [slide.name for slide in slides if slide.doubt is not None]
    if with_doubt and len(with_doubt) < len(slides):
        without = next(slide.name for slide in slides if slide.doubt is None)
        raise ValueError(
            f"{len(with_doubt)} of {len(slides)} slides have a doubt, {without!r} has none; "
            "give it for all slides or for none, so that they can be sorted."
        )
    return slides


def _check_slide(slide, classes):
    where = f"slide {slide.name!r}"
    thumbnail = np.asarray(slide.thumbnail)
    if (
        thumbnail.ndim != 3
        or thumbnail.shape[2] != 3
        or thumbnail.dtype != np.uint8
        or not thumbnail.size
    ):
        raise ValueError(
            f"{where}: thumbnail must be an RGB image (height, width, 3) of uint8, got shape "
            f"{thumbnail.shape} and type {thumbnail.dtype}."
        )
    prediction = _check_map(slide.prediction, f"{where}: prediction", classes)
    truth = None if slide.truth is None else _check_map(slide.truth, f"{where}: truth", classes)
    if truth is not None and truth.shape != prediction.shape:
        raise ValueError(
            f"{where}: truth has shape {truth.shape} but prediction {prediction.shape}; both need one "
            "value per patch of the same grid."
        )
    recorded, ends = _check_recorded(slide, where, classes)
    predicted = _check_shares(slide.predicted, f"{where}: predicted", classes, may_be_empty=True)
    error = None
    if recorded is not None and predicted is not None:
        recorded, predicted = (
            {
                name: shares.get(name, 0.0)
                for name in classes
                if name in recorded or name in predicted
            }
            for shares in (recorded, predicted)
        )
        nearest = {
            name: np.clip(predicted[name], *ends.get(name, (share, share)))
            for name, share in recorded.items()
        }
        if not slide.used_record:  # no error against a record that the prediction used
            error = float(sum(abs(nearest[name] - predicted[name]) for name in recorded))
    return _Checked(
        *(slide.name, thumbnail, prediction, truth, recorded, predicted, ends),
        metrics=_check_metrics(slide.metrics, where),
        doubt=_check_number(slide.doubt, f"{where}: doubt"),
        error=error,
        cell_pixels=_check_number(slide.cell_pixels, f"{where}: cell_pixels", positive=True),
        mpp=_check_number(slide.mpp, f"{where}: mpp", positive=True),
        values={
            name: _check_values(values, f"{where}: {name}", prediction.shape)
            for name, values in (
                ("probability", slide.probability),
                ("uncertainty", slide.uncertainty),
            )
            if values is not None
        },
        others=_check_others(slide.others, where, classes, prediction.shape),
        intervals=_check_reported_intervals(slide.intervals, where, classes),
        facts={str(name): str(value) for name, value in (slide.facts or {}).items()},
        used_record=bool(slide.used_record),
    )


def _check_values(values, what, shape):
    numbers = np.asarray(values, dtype=float)
    if numbers.shape != shape:
        raise ValueError(f"{what} has shape {numbers.shape} but prediction {shape}.")
    there = numbers[~np.isnan(numbers)]
    if ((there < 0) | (there > 1)).any():
        raise ValueError(f"{what} must lie in [0, 1], got {there.min()} to {there.max()}.")
    return numbers


def _check_others(others, where, classes, shape):
    checked = {}
    for name, codes in (others or {}).items():
        checked[str(name)] = _check_map(codes, f"{where}: others[{name!r}]", classes)
        if checked[str(name)].shape != shape:
            raise ValueError(
                f"{where}: others[{name!r}] has shape {checked[str(name)].shape} but prediction {shape}."
            )
    return checked


def _check_reported_intervals(intervals, where, classes):
    checked = {}
    for name, (low, high) in (intervals or {}).items():
        what = f"{where}: intervals[{name!r}]"
        if name not in classes:
            raise ValueError(f"{what} is not for one of the classes {classes}.")
        low, high = _check_number(low, what), _check_number(high, what)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"{what} must be increasing and within [0, 1], got {low} to {high}.")
        checked[name] = (low, high)
    return checked


def _check_map(values, what, classes):
    codes = np.asarray(values)
    if codes.ndim != 2 or not codes.size:
        raise ValueError(f"{what} must have shape (n_rows, n_columns), got {codes.shape}.")
    if codes.dtype.kind not in "iu":
        raise TypeError(f"{what} must hold indices of classes (integers), got {codes.dtype}.")
    if codes.min() < -1 or codes.max() >= len(classes):
        raise ValueError(
            f"{what} must lie in -1 (no patch) to {len(classes) - 1}, the last of the {len(classes)} "
            f"classes, got {codes.min()} to {codes.max()}."
        )
    return codes


def _check_recorded(slide, where, classes):
    """Recorded proportions by class, and their intervals if stated."""
    ends = [
        _check_shares(values, f"{where}: {name}", classes, any_sum=True)
        for name, values in (("lower", slide.lower), ("upper", slide.upper))
    ]
    is_exact = ends == [None, None]
    recorded = _check_shares(slide.recorded, f"{where}: recorded", classes, any_sum=not is_exact)
    if is_exact:
        return recorded, {}
    if None in (*ends, recorded):
        raise ValueError(f"{where}: recorded, lower and upper belong together; give all three.")
    names = [name for name in classes if any(name in shares for shares in (recorded, *ends))]
    lower, upper, written = (
        np.array([[shares.get(name, 0.0) for name in names]]) for shares in (*ends, recorded)
    )
    check_intervals(lower, upper, [slide.name], written)
    pairs = zip(lower[0].tolist(), upper[0].tolist(), strict=True)
    return recorded, dict(zip(names, pairs, strict=True))


def _check_shares(shares, what, classes, may_be_empty=False, any_sum=False):
    """Proportions by class."""
    if shares is None:
        return None
    if hasattr(shares, "items"):
        shares = dict(shares.items())
        unknown = [name for name in shares if name not in classes]
        if unknown:
            raise ValueError(f"{what} names {unknown}, not among the classes {classes}.")
    else:
        values = np.asarray(shares)
        if values.shape != (len(classes),):
            raise ValueError(
                f"{what} must have one share for each of the {len(classes)} classes, got shape "
                f"{values.shape}; a mapping of class to share may omit classes."
            )
        shares = dict(zip(classes, values.tolist(), strict=True))
    shares = {name: _check_number(value, f"{what}[{name!r}]") for name, value in shares.items()}
    if not (may_be_empty and not any(shares.values())):
        check_shares(np.array(list(shares.values()), dtype=float), what, any_sum=any_sum)
    return shares


def _check_metrics(scores, where):
    if scores is None:
        return {}
    if not hasattr(scores, "items"):
        raise TypeError(f"{where}: metrics must map names to numbers, got {type(scores).__name__}.")
    checked = {}
    for name, value in scores.items():
        # a score may be undefined on a slide, such as that of a class which is not on it
        is_undefined = isinstance(value, float | np.floating) and np.isnan(value)
        checked[str(name)] = (
            float("nan") if is_undefined else _check_number(value, f"{where}: metrics[{name!r}]")
        )
    return checked


def _check_number(value, what, positive=False):
    if value is None:
        return None
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise TypeError(f"{what} must be a number, got {value!r}.")
    if not np.isfinite(value) or (positive and value <= 0):
        raise ValueError(f"{what} must be finite{' and above 0' if positive else ''}, got {value}.")
    return float(value)


def _check_settings(settings):
    if not hasattr(settings, "items"):
        raise TypeError(
            f"settings must map names to values, such as get_params(), got {type(settings).__name__}."
        )
    return [(str(name), _shortened(repr(value))) for name, value in sorted(settings.items())]


def _shortened(text):
    return text if len(text) <= LONGEST_SETTING else f"{text[:LONGEST_SETTING]} …"


def _palette(classes, colors):
    from proportion_ssl.colors import class_colors  # slides stay out of "import proportion_ssl"

    return list(class_colors(classes, colors).values())


# --- what is shown ------------------------------------------------------------------------------


def _most_doubtful_first(slides):
    """By doubt, or else by error; those without come last, by their mean uncertainty or as given."""

    def key(slide):
        doubt = slide.error if slide.doubt is None else slide.doubt
        return (doubt is None, -(doubt or 0.0), -(slide.unsure or 0.0) if doubt is None else 0.0)

    return sorted(slides, key=key)


def _view(slide, classes, palette):
    """The values that the template writes for a slide."""
    codes = np.concatenate([m.ravel() for m in (slide.prediction, slide.truth) if m is not None])
    height, width = slide.thumbnail.shape[:2]
    n_rows, n_columns = slide.prediction.shape
    cover = (100.0, 100.0)
    if slide.cell_pixels is not None:
        cover = (
            100 * n_columns * slide.cell_pixels / width,
            100 * n_rows * slide.cell_pixels / height,
        )
    doubt = slide.shown_error if slide.doubt is None else slide.doubt
    return {
        "name": slide.name,
        "thumbnail": thumbnail_uri(slide.thumbnail),
        "width": width,
        "height": height,
        "map_size": (n_columns, n_rows),
        "cover": cover,
        "layers": _layers(slide, palette),
        "legend": [
            (i, classes[i], _counts(slide, i)) for i in np.unique(codes[codes >= 0]).tolist()
        ],
        "shares": _shares(slide, classes),
        "ends": {code: slide.ends[name] for code, name in enumerate(classes) if name in slide.ends},
        "is_rough": any(high - low > 0.0005 for low, high in slide.ends.values()),
        # rounded shares may sum to more than 1
        "whole": [max(1.0, sum((s or {}).values())) for s in (slide.recorded, slide.predicted)],
        "has": (slide.recorded is not None, slide.predicted is not None),
        "metrics": slide.metrics,
        "doubt": doubt,
        "error": slide.shown_error,
        "mpp": slide.mpp,
        "intervals": {
            code: slide.intervals[n] for code, n in enumerate(classes) if n in slide.intervals
        },
        "facts": slide.facts,
        "used_record": slide.used_record,
        "unsure": slide.unsure,
    }


def _layers(slide, palette):
    """(class in the style sheet, name, picture) of the layers of a slide."""
    labels = {"prediction": slide.prediction, "truth": slide.truth}
    found = [
        (name, name, label_map_uri(codes, palette))
        for name, codes in labels.items()
        if codes is not None
    ]
    found += [(name, name, value_map_uri(values)) for name, values in slide.values.items()]
    others = enumerate(slide.others.items())
    return found + [
        (f"other-{i}", name, label_map_uri(codes, palette)) for i, (name, codes) in others
    ]


def _occurring(slides, classes):
    """(code, name) of the classes that a map or a share of some slide has."""
    seen = set()
    for slide in slides:
        maps = (slide.prediction, slide.truth, *slide.others.values())
        seen |= {int(code) for m in maps if m is not None for code in np.unique(m) if code >= 0}
        for shares in (slide.recorded, slide.predicted):
            seen |= {classes.index(name) for name, share in (shares or {}).items() if share}
    return [(code, name) for code, name in enumerate(classes) if code in seen]


def _explained(metrics, own_scores):
    """Names and meanings of the known scores in the tables of folds and slides."""
    names = [*(() if metrics is None else metrics), *(n for scores in own_scores for n in scores)]
    return [(name, EXPLAINED[name]) for name in dict.fromkeys(names) if name in EXPLAINED]


def _spreadsheet(views, classes):
    """Tab-separated table for spreadsheets, one line per slide; shares in percent."""
    if not views:
        return ""
    covered = [n for n in classes if any(n in [s[1] for s in view["shares"]] for view in views)]
    facts = list(dict.fromkeys(name for view in views for name in view["facts"]))
    metrics = list(dict.fromkeys(name for view in views for name in view["metrics"]))
    head = ["slide", "record used", *facts]
    for name in covered:
        head += [f"{name} recorded %", f"{name} predicted %", f"{name} low %", f"{name} high %"]
    lines = [[*head, "sum absolute error", "mean uncertainty", *metrics]]
    for view in views:
        cells = [view["name"], "yes" if view["used_record"] else "no"]
        cells += [view["facts"].get(name, "") for name in facts]
        shares = {name: (code, recorded, guess) for code, name, recorded, guess in view["shares"]}
        for name in covered:
            code, recorded, guess = shares.get(name, (None, None, None))
            ends = view["intervals"].get(code, (None, None))
            cells += [_cell(v, 100, 1) for v in (recorded, guess, *ends)]
        cells += [_cell(view["error"]), _cell(view["unsure"])]
        lines.append([*cells, *(_cell(view["metrics"].get(name)) for name in metrics)])
    return "\n".join("\t".join(" ".join(cell.split()) for cell in line) for line in lines)


def _cell(value, factor=1.0, digits=3):
    return "" if value is None or not np.isfinite(value) else f"{factor * value:.{digits}f}"


def _counts(slide, code):
    """Number of predicted and of true patches of a class."""
    return [
        (layer, int((codes == code).sum()))
        for layer, codes in (("predicted", slide.prediction), ("true", slide.truth))
        if codes is not None
    ]


def _shares(slide, classes):
    """(class code, name, recorded, predicted) of the classes with proportions."""
    recorded, predicted = slide.recorded or {}, slide.predicted or {}
    return [
        (code, name, recorded.get(name), predicted.get(name))
        for code, name in enumerate(classes)
        if name in recorded or name in predicted
    ]


def _rounds(history, history_classes, classes):
    if history is None:
        return {
            "rounds": [],
            "counted": [],
            "counts": None,
            "error_lines": None,
            "loss_lines": None,
        }
    counted = []
    if history_classes is not None:
        counted = _check_classes(history_classes, "history_classes")
        unknown = [name for name in counted if name not in classes]
        if unknown:
            raise ValueError(f"history_classes names {unknown}, not among the classes {classes}.")
    elif has_counts(history):
        raise ValueError(
            "history counts labels per class; give history_classes=classifier.classes_, their "
            "order."
        )
    rounds = read_history(history, len(counted))
    order = sorted(range(len(counted)), key=lambda i: classes.index(counted[i]))
    rounds = [r.in_order(order) for r in rounds]
    codes = sorted(classes.index(name) for name in counted)
    return {
        "rounds": rounds,
        "counted": [(code, classes[code]) for code in codes],
        "counts": draw_counts(rounds, codes),
        "error_lines": draw_lines(rounds[1:], ["sum_absolute_error"], most=1.0),
        "loss_lines": draw_lines(rounds, ["train_loss", "valid_loss"]),
    }


# --- the page -----------------------------------------------------------------------------------


def _render(page, palette):
    style, script = _asset("page.css") + _own_rules(page, palette), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    template = environment.from_string(_asset("page.html"))
    return template.render(**page, policy=policy, style=style, script=script)


def _asset(name):
    return (resources.files("proportion_ssl.reporting") / name).read_text(encoding="utf-8")


def _own_rules(page, palette):
    """CSS rules for class colors and map positions, as the security policy forbids inline styles."""
    rules = [f".c{i}{{--c:#{r:02x}{g:02x}{b:02x}}}" for i, (r, g, b) in enumerate(palette)]
    for i, slide in enumerate(page["slides"]):
        width, height = slide["cover"]
        rules.append(f"#s{i} .map{{width:{width:.4f}%;height:{height:.4f}%}}")
        for layer, _, _ in slide["layers"]:
            if layer.startswith("other-"):
                rules.append(f"#s{i} .layer.{layer}:checked ~ .frame .map.{layer}{{display:block}}")
        rules.append(f"#s{i} .stage{{max-width:calc(75vh*{slide['width'] / slide['height']:.5f})}}")
    for i, panel in enumerate(page["panels"] or []):
        places = [f"#ba{i} .at{j}{{top:{y}%}}" for j, (y, _) in enumerate(panel.lines)]
        rules += places
    if page["counts"] is not None:
        rules.append(f"#counts .zero{{top:{page['counts'].zero:.3f}%}}")
    return "\n".join(["", *rules, ""])


def _hash(text):
    """Source expression of a content security policy that allows only this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
