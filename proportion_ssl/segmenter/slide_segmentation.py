"""What segmenting one slide gives: labels, probabilities and proportions, and files of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl.colors import class_colors, to_hex
from proportion_ssl.evaluation import entropy_uncertainty
from proportion_ssl.segmenter.slide_features import NON_CANCER
from proportion_ssl.slides import (
    PatchGrid,
    overlay_picture,
    prediction_regions,
    slide_summary,
    stitch,
    write_geojson,
    write_label_map,
    write_picture,
    write_table,
)


@dataclass(frozen=True, eq=False)
class SlideSegmentation:
    """One slide, segmented.

    Attributes
    ----------
    name : str
    grid : PatchGrid
        Cells of the map: the patches, or with overlapping windows cells of the size of the stride.
    classes : list of str
        Classes of the map: those of the cohort, then "non-cancer" if tumor was proposed.
    labels : ndarray of str, shape (n_cells,)
    probabilities : ndarray of shape (n_cells, n_classes)
        Columns in the order of `classes`; rows sum to 1.
    dimensions : tuple of int
        (width, height) of level 0.
    mpp : tuple of float
        Microns per level-0 pixel, (x, y).
    origin : tuple of int
        Level-0 (x, y) of the scanned part; QuPath counts from there.
    recorded : DataFrame or None
        Recorded proportions, if they were given: by class, ``share`` as written and its interval, ``lower``
        and ``upper``. They did not enter the prediction.
    overview : ndarray of shape (height, width, 3), uint8, or None
        Picture of the whole slide; None if only its features were at hand.
    colors : dict of str to (red, green, blue)
    features : str
        What the features are.
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

    @property
    def proportions(self) -> pd.Series:
        """Share of each class of cancer in the cells that are cancer; NaN where none is."""
        names = [name for name in self.classes if name != NON_CANCER]
        counts = pd.Series({name: int((self.labels == name).sum()) for name in names}, dtype=float)
        return counts / counts.sum() if counts.sum() else counts * np.nan

    @property
    def uncertainty(self) -> np.ndarray:
        """Entropy of the probabilities of each cell, divided by its largest value: in [0, 1]."""
        return entropy_uncertainty(self.probabilities)

    def label_map(self) -> np.ndarray:
        """Index of the class in every cell of the grid, -1 where there is none.

        Returns
        -------
        label_map : ndarray of int, shape ``grid.shape``
        """
        position = {name: index for index, name in enumerate(self.classes)}
        codes = np.array([position[name] for name in self.labels.tolist()], dtype=int)
        return stitch(codes, self.grid.cells, self.grid.shape)

    @property
    def cell_um(self) -> float:
        """Side of a cell in microns."""
        return self.grid.size[0] * self.grid.mpp

    @property
    def overview_mpp(self) -> float:
        """Microns per pixel of the overview."""
        if self.overview is None:
            raise ValueError(f"{self.name} has no overview: only its features were at hand.")
        return self.mpp[0] * self.dimensions[0] / self.overview.shape[1]

    def row(self) -> dict[str, str | int | float]:
        """Numbers of the slide for a table.

        Returns
        -------
        row : dict
            As of :func:`~proportion_ssl.slides.slide_summary`, and ``mean_uncertainty`` of the cancer.
        """
        row = slide_summary(
            self.name,
            self.labels.tolist(),
            self.grid,
            self.classes,
            mpp=self.mpp,
            probabilities=self.probabilities,
            **self.record(),
        )
        cancer = self.labels != NON_CANCER
        row["mean_uncertainty"] = float(self.uncertainty[cancer].mean()) if cancer.any() else np.nan
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
            classes=self.classes,
            thumbnail=self.overview,
            cell_pixels=cell_pixels,
            patch_um=self.cell_um,
            ax=ax,
            colors={name: to_hex(color) for name, color in self._palette().items()},
            alpha=alpha,
        )

    def write(self, folder: str | PathLike[str]) -> dict[str, Path]:
        """Write the segmentation for viewers and spreadsheets.

        Parameters
        ----------
        folder : str or path-like
            Made if it does not exist; files of the same names are replaced.

        Returns
        -------
        paths : dict of str to Path
            ``"labels"``: label map, a pyramidal TIFF with colors; ``"geojson"``: outlines for
            QuPath, with the mean probability of each; ``"overlay"``: PNG over the overview, if
            there is one; ``"table"``: one row of numbers.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        palette, labels = self._palette(), self.labels.tolist()
        paths = {
            "labels": folder / f"{self.name}_labels.tif",
            "geojson": folder / f"{self.name}.geojson",
            "table": folder / f"{self.name}.csv",
        }
        write_label_map(paths["labels"], labels, self.grid, self.classes, colors=palette)
        regions = prediction_regions(
            labels,
            self.grid,
            self.classes,
            mpp=self.mpp,
            probabilities=self.probabilities,
            colors=palette,
        )
        write_geojson(paths["geojson"], regions, offset=self.origin)
        if self.overview is not None:
            paths["overlay"] = folder / f"{self.name}_overlay.png"
            picture = overlay_picture(
                self.overview, self.dimensions, labels, self.grid, self.classes, colors=palette
            )
            write_picture(paths["overlay"], picture)
        write_table(paths["table"], [self.row()])
        return paths

    def record(self) -> dict[str, Any]:
        """Recorded shares and their intervals, as tables and report take them.

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
        return class_colors(self.classes, dict(self.colors))
