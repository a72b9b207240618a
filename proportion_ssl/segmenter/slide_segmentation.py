"""Segmentation of one slide: labels, probabilities and proportions, and the files written of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from proportion_ssl._checks import check_fraction
from proportion_ssl.colors import class_colors, to_hex
from proportion_ssl.evaluation import (
    IASLC_2020,
    GradingScheme,
    conformal_intervals,
    entropy_uncertainty,
    grade,
    predominant_class,
)
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.slides import (
    PatchGrid,
    overlay_picture,
    prediction_regions,
    slide_summary,
    stitch,
    write_geojson,
    write_label_map,
    write_picture,
    write_probability_map,
    write_table,
)

if TYPE_CHECKING:
    from proportion_ssl.reporting import ReportSlide

UNCERTAIN = "uncertain"
"""Class of cells whose largest probability is below ``reject_below``."""

UNCERTAIN_COLOR = (70, 70, 70)

#: Colors of the uncertainty map, from low to high uncertainty.
STEPS = {
    "0 to 0.2": (68, 1, 84),
    "0.2 to 0.4": (59, 82, 139),
    "0.4 to 0.6": (33, 145, 140),
    "0.6 to 0.8": (94, 201, 98),
    "0.8 to 1": (253, 231, 37),
}


@dataclass(frozen=True, eq=False)
class SlideSegmentation:
    """One slide, segmented.

    Attributes
    ----------
    name : str
    grid : PatchGrid
        Cells of the map: the patches, or cells of the size of the stride if windows overlap.
    classes : list of str
        Classes of the map: those of the cohort, and "non-cancer" if tumor was proposed.
    labels : ndarray of str, shape (n_cells,)
        Classes, or "uncertain" after :meth:`reject`.
    probabilities : ndarray of shape (n_cells, n_classes)
        Columns in the order of `classes`; rows sum to 1.
    dimensions : tuple of int
        (width, height) of level 0.
    mpp : tuple of float
        Microns per level-0 pixel, (x, y).
    origin : tuple of int
        Level-0 (x, y) of the scanned region, the origin of coordinates in QuPath.
    recorded : DataFrame or None
        Recorded proportions, if given: by class, ``share`` as written and its interval, ``lower`` and
        ``upper``.
    overview : ndarray of shape (height, width, 3), uint8, or None
        Image of the whole slide; None if only its features were available.
    colors : dict of str to (red, green, blue)
    features : str
        Description of the features.
    used_record : bool
        Whether the prediction used the record; scores against that record are then meaningless.
    proportion_errors : ndarray of shape (n_classes of cancer,) or None
        Errors of predicted proportions (:func:`~proportion_ssl.evaluation.conformal_errors`); None if the
        segmenter was not calibrated.
    """

    name: str
    grid: PatchGrid
    classes: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    dimensions: tuple[int, int]
    mpp: tuple[float, float]
    origin: tuple[int, int] = (0, 0)
    recorded: pd.DataFrame | None = None
    overview: np.ndarray | None = None
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    features: str = ""
    used_record: bool = False
    proportion_errors: np.ndarray | None = None

    def __repr__(self) -> str:
        found = f"predominant class {self.predominant!r}" if self.predominant else "no cancer"
        return f"SlideSegmentation({self.name!r}, {len(self.labels)} cells, {found})"

    @property
    def cancer_classes(self) -> list[str]:
        """Classes without "non-cancer"."""
        return [name for name in self.classes if name != NON_CANCER]

    @property
    def map_classes(self) -> list[str]:
        """Classes of the labels: `classes`, and "uncertain" if such cells exist."""
        return [*self.classes, UNCERTAIN] if (self.labels == UNCERTAIN).any() else self.classes

    @property
    def proportions(self) -> pd.Series:
        """Share of each class in the cells of cancer; NaN if no cell is cancer."""
        names = self.cancer_classes
        counts = pd.Series({name: int((self.labels == name).sum()) for name in names}, dtype=float)
        return counts / counts.sum() if counts.sum() else counts * np.nan

    @property
    def proportion_intervals(self) -> pd.DataFrame | None:
        """Marginal 90% prediction intervals of the class shares.

        Each interval contains the true share of its class in 90% of similar slides. ``low`` and ``high`` by
        class, from the errors on left-out bags; NaN if no cell is cancer. None if the segmenter was not
        calibrated, or if the prediction used the record.
        """
        if self.proportion_errors is None or self.used_record:
            return None
        shares = self.proportions
        low, high = conformal_intervals(shares.to_numpy()[np.newaxis], self.proportion_errors)
        return pd.DataFrame({"low": low[0], "high": high[0]}, index=shares.index)

    @property
    def predominant(self) -> str | None:
        """Class with the largest share of the cancer; None if no cell is cancer."""
        return predominant_class(self.proportions.to_frame().T)[0]

    def grade(self, scheme: GradingScheme = IASLC_2020) -> int | None:
        """Grade of this slide. The grade of a tumor needs the cells of all its slides.

        Parameters
        ----------
        scheme : GradingScheme, default=IASLC_2020

        Returns
        -------
        grade : int or None
            None if no cell is cancer, or if a class is not in the scheme.
        """
        if not scheme.knows(self.cancer_classes):
            return None
        return grade(self.proportions.to_frame().T, scheme)[0]

    def reject(self, below: float) -> SlideSegmentation:
        """Copy with class "uncertain" where the largest probability is too small.

        Proportions, predominant class and grade then count only the other cells.

        Parameters
        ----------
        below : float in [0, 1]

        Returns
        -------
        segmentation : SlideSegmentation

        Raises
        ------
        ValueError
            If `below` is not in [0, 1].
        """
        check_fraction(below, "reject_below")
        unsure = self.probabilities.max(axis=1) < below
        return replace(self, labels=np.where(unsure, UNCERTAIN, self.labels).astype(object))

    @property
    def uncertainty(self) -> np.ndarray:
        """Normalized entropy of the probabilities of each cell, in [0, 1]."""
        return entropy_uncertainty(self.probabilities)

    def label_map(self) -> np.ndarray:
        """Index in `map_classes` of the class of every grid cell, -1 for grid cells without a class.

        Returns
        -------
        label_map : ndarray of int, shape ``grid.shape``
        """
        return self._codes_in(self.map_classes)

    def value_map(self, values: np.ndarray) -> np.ndarray:
        """Arrange values of the cells on the grid.

        Parameters
        ----------
        values : ndarray of shape (n_cells,)
            Such as `uncertainty`.

        Returns
        -------
        value_map : ndarray of float, shape ``grid.shape``
            NaN in grid positions without a cell.
        """
        return stitch(
            np.asarray(values, dtype=float), self.grid.cells, self.grid.shape, fill=np.nan
        )

    @property
    def cell_um(self) -> float:
        """Side of a cell in microns."""
        return self.grid.size[0] * self.grid.mpp

    @property
    def overview_mpp(self) -> float:
        """Microns per pixel of the overview."""
        if self.overview is None:
            raise ValueError(f"{self.name} has no overview: only its features were available.")
        return self.mpp[0] * self.dimensions[0] / self.overview.shape[1]

    def row(self) -> dict[str, str | int | float]:
        """Table row of the slide.

        Returns
        -------
        row : dict
            Columns of :func:`~proportion_ssl.slides.slide_summary`, and ``mean_uncertainty`` of the cancer;
            ``predominant`` class and ``grade``, if the classes are patterns of IASLC 2020;
            ``predicted_low_<class>`` and ``predicted_high_<class>`` if the segmenter was calibrated;
            ``share_uncertain`` of the cells; ``used_record``.
        """
        row = slide_summary(
            self.name,
            self.labels.tolist(),
            self.grid,
            self.map_classes,
            mpp=self.mpp,
            probabilities=self._map_probabilities(),
            not_tumor=(NON_CANCER, UNCERTAIN),
            **self.record(),
        )
        cancer = np.isin(self.labels.astype(str), self.cancer_classes)
        row["mean_uncertainty"] = float(self.uncertainty[cancer].mean()) if cancer.any() else np.nan
        row["predominant"] = self.predominant or ""
        if IASLC_2020.knows(self.cancer_classes):
            row["grade"] = self.grade() or ""
        intervals = self.proportion_intervals
        if intervals is not None:
            for name, (low, high) in intervals.iterrows():
                row[f"predicted_low_{name}"], row[f"predicted_high_{name}"] = low, high
        row["share_uncertain"] = float((self.labels == UNCERTAIN).mean())
        row["used_record"] = self.used_record
        return row

    def plot(self, ax: Any = None, *, alpha: float = 0.6) -> Any:
        """Draw the map over the slide with matplotlib.

        Parameters
        ----------
        ax : matplotlib axes, optional
        alpha : float in [0, 1], default=0.6
            Opacity of the colors.

        Returns
        -------
        display : SegmentationDisplay
        """
        from proportion_ssl.displays import SegmentationDisplay

        cell_pixels = None if self.overview is None else self.cell_um / self.overview_mpp
        return SegmentationDisplay.from_predictions(
            None,
            {self.name: self.label_map()},
            classes=self.map_classes,
            thumbnail=self.overview,
            cell_pixels=cell_pixels,
            patch_um=self.cell_um,
            ax=ax,
            colors={name: to_hex(color) for name, color in self._palette().items()},
            alpha=alpha,
        )

    def write(self, folder: str | PathLike[str]) -> dict[str, Path]:
        """Write the segmentation as files for viewers and spreadsheets.

        Parameters
        ----------
        folder : str or path-like
            Created if needed; files with the same names are replaced.

        Returns
        -------
        paths : dict of str to Path
            ``"labels"``: label map, a pyramidal TIFF with colors; ``"uncertainty"``: the same in
            gray, coded as :func:`~proportion_ssl.slides.write_probability_map` codes probabilities;
            ``"geojson"``: outlines for QuPath, with the mean probability and uncertainty of each;
            ``"overlay"`` and ``"uncertainty_overlay"``: PNG over the overview, if there is one;
            ``"table"``: one row of numbers.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        palette, labels = self._palette(), self.labels.tolist()
        paths = files_of(self.name, folder)
        write_label_map(paths["labels"], labels, self.grid, self.map_classes, colors=palette)
        unsure = np.clip(self.uncertainty, 0.0, 1.0)
        write_probability_map(paths["uncertainty"], unsure, self.grid, "uncertainty")
        regions = prediction_regions(
            labels,
            self.grid,
            self.map_classes,
            mpp=self.mpp,
            probabilities=self._map_probabilities(),
            values={"Mean uncertainty": unsure},
            colors=palette,
        )
        write_geojson(paths["geojson"], regions, offset=self.origin)
        if self.overview is not None:
            steps = np.minimum((unsure * len(STEPS)).astype(int), len(STEPS) - 1)
            occurring = [name for name in self.map_classes if (self.labels == name).any()]
            for name, codes, classes, colors in (
                ("overlay", labels, occurring, {name: palette[name] for name in occurring}),
                ("uncertainty_overlay", steps.tolist(), list(STEPS), STEPS),
            ):
                picture = overlay_picture(
                    self.overview,
                    self.dimensions,
                    codes,
                    self.grid,
                    classes,
                    colors=colors,
                    mpp=self.overview_mpp,
                )
                write_picture(paths[name], picture)
        write_table(paths["table"], [self.row()])
        if self.overview is None:
            del paths["overlay"], paths["uncertainty_overlay"]
        return paths

    def report_slide(
        self,
        classes: Sequence[str],
        *,
        truth: ArrayLike | None = None,
        others: Mapping[str, SlideSegmentation] | None = None,
    ) -> ReportSlide:
        """Content of a report on this slide, for :func:`~proportion_ssl.report`.

        Parameters
        ----------
        classes : sequence of str
            Classes of the report, in the same order; those of the labels are among them.
        truth : array-like of str, shape (n_cells,), optional
            True class of each cell; a name that is not in `classes` (``""``, say) means unknown.
        others : mapping of str to SlideSegmentation, optional
            Segmentations of the slide by other systems; those on a different grid are left out.

        Returns
        -------
        slide : ReportSlide

        Raises
        ------
        ValueError
            If a label is not in `classes`, or `truth` has another length.

        Notes
        -----
        Without an overview the maps lie on white.
        """
        from proportion_ssl.reporting import ReportSlide

        classes = list(classes)
        shares, intervals = self.proportions, self.proportion_intervals
        has_shares = not shares.isna().any()
        facts = {"predominant": self.predominant or "none"}
        if self.grade() is not None:
            facts["grade of this slide"] = str(self.grade())
        mpp, picture = self.cell_um, np.full((*self.grid.shape, 3), 255, dtype=np.uint8)
        if self.overview is not None:
            mpp, picture = self.overview_mpp, self.overview
        return ReportSlide(
            self.name,
            picture,
            self._codes_in(classes),
            truth=None if truth is None else self._truth_in(classes, truth),
            **self.record(),
            predicted=shares.to_dict() if has_shares else None,
            cell_pixels=self.cell_um / mpp,
            mpp=mpp,
            probability=np.minimum(self.value_map(self.probabilities.max(axis=1)), 1.0),
            uncertainty=np.minimum(self.value_map(self.uncertainty), 1.0),
            others={
                name: other._codes_in(classes)
                for name, other in (others or {}).items()
                if other.grid.shape == self.grid.shape
            },
            intervals=(
                {name: (row.low, row.high) for name, row in intervals.iterrows()}
                if intervals is not None and has_shares
                else None
            ),
            facts=facts,
            used_record=self.used_record,
        )

    def _codes_in(self, classes):
        """Index in `classes` of the class of every grid cell, -1 without one."""
        position = {name: code for code, name in enumerate(classes)}
        unknown = sorted(set(self.labels) - set(position))
        if unknown:
            raise ValueError(
                f"{self.name} has cells of class {unknown[0]!r}, which is not among the classes of the "
                f"report, {classes}; add it."
            )
        return self._stitched(self.labels, position)

    def _truth_in(self, classes, truth):
        truth = np.asarray(truth).tolist()
        if len(truth) != len(self.grid):
            raise ValueError(
                f"truth has {len(truth)} entries, but {self.name} has {len(self.grid)} cells; give one per "
                "cell."
            )
        return self._stitched(truth, {name: code for code, name in enumerate(classes)})

    def _stitched(self, names, position):
        """Position of the name of each cell on the grid; -1 without a cell or a position."""
        codes = np.array([position.get(name, -1) for name in names], dtype=int)
        return stitch(codes, self.grid.cells, self.grid.shape)

    def record(self) -> dict[str, Any]:
        """Recorded shares and their intervals, in the form used by tables and report.

        Returns
        -------
        record : dict
            ``recorded``, ``lower`` and ``upper``, each by class; empty without a record.
        """
        if self.recorded is None:
            return {}
        names = {"recorded": "share", "lower": "lower", "upper": "upper"}
        return {name: self.recorded[column].to_dict() for name, column in names.items()}

    def _palette(self):
        return class_colors(self.map_classes, {UNCERTAIN: UNCERTAIN_COLOR, **self.colors})

    def _map_probabilities(self):
        """Probabilities, with a column of zeros for "uncertain" if such cells exist."""
        more = len(self.map_classes) - len(self.classes)
        return np.pad(self.probabilities, ((0, 0), (0, more)))


def files_of(name: str, folder: Path) -> dict[str, Path]:
    """Paths of the files of :meth:`SlideSegmentation.write`; the overlays are written only with an overview.

    Parameters
    ----------
    name : str
    folder : Path

    Returns
    -------
    paths : dict of str to Path
    """
    endings = {
        "labels": "_labels.tif",
        "uncertainty": "_uncertainty.tif",
        "geojson": ".geojson",
        "table": ".csv",
        "overlay": "_overlay.png",
        "uncertainty_overlay": "_uncertainty.png",
    }
    return {key: folder / f"{name}{ending}" for key, ending in endings.items()}
