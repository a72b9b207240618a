"""A synthetic cohort of lung adenocarcinoma slides, written as real files."""

import logging
import math
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.ndimage import distance_transform_edt, gaussian_filter
from sklearn.utils import check_random_state
from tqdm.auto import tqdm

from proportion_ssl.datasets._slide_files import write_outlines, write_slide, write_text
from proportion_ssl.datasets._tissue.fields import resize_field, smooth_noise
from proportion_ssl.datasets._tissue.paint import MPP, paint
from proportion_ssl.datasets._tissue.patterns import MICRONS, TEXTURES, draw_architecture, lay_out
from proportion_ssl.datasets._tissue.regions import (
    CANCER_CLASSES,
    CLASSES,
    COLORS,
    NON_CANCER,
    REGION_MICRONS,
    VAGUE,
    RegionMap,
    class_shares,
    draw_regions,
    polygonise,
)
from proportion_ssl.datasets._tissue.stain import draw_stain

logger = logging.getLogger(__name__)

_ROLES = ("labeled", "bag", "test")
_SMALLEST = 768  # pixels: 0.4 mm, the smallest size that holds a gland and its stroma
_OUTLINE_TOLERANCE = 14.0  # pixels; the steps of the region map are 16


@dataclass(frozen=True)
class _Job:
    """Input of one worker to make one slide."""

    name: str
    role: str
    shares: np.ndarray
    seed: np.random.SeedSequence
    size: tuple[int, int]
    stain_variation: float
    architecture_variation: float


def make_slides(
    directory: str | PathLike,
    *,
    n_labeled: int = 6,
    n_bags: int = 20,
    n_test: int = 6,
    slide_size: int | tuple[int, int] = 4928,
    stain_variation: float = 1.0,
    architecture_variation: float = 1.0,
    proportion_noise: float = 0.0,
    rounding: float = 0.1,
    overwrite: bool = False,
    random_state: int | np.random.RandomState | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> Path:
    """Write a synthetic cohort of H&E-like lung adenocarcinoma slides.

    The slides are real files: tiled, JPEG-compressed TIFF pyramids (levels 1, 2, 4 and 8) at 0.5 microns per
    pixel (20x), with resolution tags, so that 10x is a stored level. The tissue shows the five growth
    patterns with their architecture (lepidic: alveolar walls lined by tumor cells; acinar: glands in stroma;
    papillary: fronds with fibrovascular cores; micropapillary: tufts without cores floating in airspaces;
    solid: sheets of cells), normal lung and fibrous tissue as non-cancer, and some vague regions. It is meant
    for trying out, testing and teaching, not as a substitute for patients' slides.

    Parameters
    ----------
    directory : path-like
        Folder to write to; created if needed.
    n_labeled, n_bags, n_test : int
        Slides with outlines for training, slides with proportions only, slides for evaluation.
    slide_size : int or (int, int)
        Width and height in pixels; one number for square slides; at least 768. The default of 4928 pixels is
        11 windows of 224 pixels at 10x, about 2.5 mm. A specimen covers about two thirds of its slide.
    stain_variation : float
        Variation of stain and scanner between slides. 0: none; 1: like slides from several hospitals
        (standard deviation of about 20% for the amount of each stain, and visible changes of hue).
    architecture_variation : float
        Variation of the tissue between slides: sizes of airspaces, glands, fronds, tufts and cells, thickness
        of septa, darkness of nuclei, inflammation. 0: none; 1: a pattern of one slide can look like a similar
        pattern of another.
    proportion_noise : float
        Standard deviation, in percentage points, of an error added to the recorded proportions of the
        patterns that occur. It does not affect the slides.
    rounding : float
        Rounding step of the recorded percentages; must divide 100. Pathologists usually write steps of 5 or
        10.
    overwrite : bool
        Whether to replace an existing cohort.
    random_state : int, RandomState or None
        The same int gives byte-identical files (with the same versions of the libraries and the same type of
        processor) for any `n_jobs`. The k-th slide of a role does not depend on the number of slides.
    n_jobs : int or None
        Number of slides made in parallel, as in joblib; each takes about 0.7 GB of memory.
    verbose : bool
        Whether to show a progress bar.

    Returns
    -------
    cohort : Path
        The manifest ``cohort.csv``, for `load_cohort`. It is written last, so a folder with it is complete.

    Raises
    ------
    FileExistsError
        If the folder holds a cohort, or part of an interrupted one, and `overwrite` is False.
    TypeError, ValueError
        If an argument has a wrong type or is out of range.

    Notes
    -----
    Files: ``slides/<slide>.tif``; ``annotations/<slide>.geojson`` for labeled and test slides, in QuPath's
    format and level-0 pixels, without overlaps, regions of class "vague" last; ``cohort.csv`` with the
    columns slide, annotation, role and, for every slide, the percentages of the five patterns in the cancer
    area (without non-cancer tissue and vague regions). They are computed from the areas of the outlines and
    rounded so that they sum to 100.

    All slides come from one distribution: shares of the patterns follow a Dirichlet distribution, patterns of
    less than 8% are left out, at most four patterns remain. Within a role the predominant pattern cycles
    through the five patterns.

    Concentrations of hematoxylin and eosin are drawn and converted to colors by the Beer-Lambert law.

    Examples
    --------
    >>> import tempfile
    >>> from proportion_ssl import load_cohort
    >>> from proportion_ssl.datasets import make_slides
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = make_slides(
    ...         folder, n_labeled=1, n_bags=1, n_test=0, slide_size=768, random_state=0
    ...     )
    ...     cohort = load_cohort(manifest)
    >>> cohort.classes
    ['lepidic', 'acinar', 'papillary', 'micropapillary', 'solid']
    >>> list(cohort.labeled), list(cohort.bags)
    (['labeled_01'], ['bag_01'])
    """
    counts = {"n_labeled": n_labeled, "n_bags": n_bags, "n_test": n_test}
    size = _check_size(slide_size)
    _check_numbers(counts, stain_variation, architecture_variation, proportion_noise, rounding)
    folder = Path(directory)
    _prepare(folder, overwrite)
    entropy = int(check_random_state(random_state).randint(2**31 - 1))
    jobs: list[_Job] = []
    noise_seeds = []
    for role, count, root in zip(
        _ROLES, counts.values(), np.random.SeedSequence(entropy).spawn(len(_ROLES)), strict=True
    ):
        plan, noise, slides = root.spawn(3)
        shares = _draw_shares(np.random.default_rng(plan), count)
        noise_seeds += noise.spawn(count)
        jobs += [
            _Job(
                f"{role}_{k + 1:02d}",
                role,
                shares[k],
                seed,
                size,
                float(stain_variation),
                float(architecture_variation),
            )
            for k, seed in enumerate(slides.spawn(count))
        ]
    tasks = (delayed(_make_slide)(folder, job) for job in jobs)
    found = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    found = list(tqdm(found, total=len(jobs), desc="making slides", disable=not verbose))
    rows = []
    for job, shares, seed in zip(jobs, found, noise_seeds, strict=True):
        rng = np.random.default_rng(seed)
        percentages = _record(shares, proportion_noise, float(rounding), rng)
        annotation = "" if job.role == "bag" else f"annotations/{job.name}.geojson"
        rows.append([f"slides/{job.name}.tif", annotation, job.role, *percentages])
    table = pd.DataFrame(rows, columns=["slide", "annotation", "role", *CANCER_CLASSES])
    manifest = folder / "cohort.csv"
    write_text(manifest, table.to_csv(index=False, lineterminator="\n"))
    logger.info("wrote %d slides and %s", len(jobs), manifest)
    return manifest


def _check_size(slide_size) -> tuple[int, int]:
    pair = (slide_size, slide_size) if isinstance(slide_size, Integral) else slide_size
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(
            f"slide_size is {slide_size!r}; give one int, or (width, height), in pixels."
        )
    if not all(isinstance(side, Integral) and not isinstance(side, bool) for side in pair):
        raise TypeError(f"slide_size is {slide_size!r}; width and height must be ints, in pixels.")
    if min(pair) < _SMALLEST:
        raise ValueError(
            f"slide_size is {slide_size!r}; width and height must be at least {_SMALLEST} pixels."
        )
    return int(pair[0]), int(pair[1])


def _check_numbers(
    counts, stain_variation, architecture_variation, proportion_noise, rounding
) -> None:
    for name, value in counts.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; give a whole number of slides.")
        if value < 0:
            raise ValueError(f"{name} is {value}; give 0 or more slides.")
    if not sum(counts.values()):
        raise ValueError("n_labeled, n_bags and n_test are all 0; at least one slide is needed.")
    for name, value in {
        "stain_variation": stain_variation,
        "architecture_variation": architecture_variation,
        "proportion_noise": proportion_noise,
        "rounding": rounding,
    }.items():
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; give a number.")
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} is {value}; give a finite number of at least 0.")
    steps = 100 / rounding if rounding > 0 else 0.5
    if steps < 1 or abs(steps - round(steps)) > 1e-9:
        raise ValueError(
            f"rounding is {rounding}; give a step of the percentages that divides 100, such as 0.1,"
            " 1, 5 or 10."
        )


def _prepare(folder: Path, overwrite: bool) -> None:
    """Create the folders; raise if they hold another cohort, or remove its files."""
    manifest = folder / "cohort.csv"
    old = [
        path
        for kind, suffix in (("slides", ".tif"), ("annotations", ".geojson"))
        for role in _ROLES
        for pattern in (f"{role}_*{suffix}", f"{role}_*{suffix}.partial")
        for path in sorted((folder / kind).glob(pattern))
    ]
    if not overwrite:
        if manifest.exists():
            raise FileExistsError(
                f"{folder} already holds a cohort; read it with load_cohort, use another"
                " directory, or pass overwrite=True to replace it."
            )
        if old:
            raise FileExistsError(
                f"{folder} holds {old[0].name} but no cohort.csv, so a run was interrupted;"
                " pass overwrite=True to replace the files, or use another directory."
            )
    manifest.unlink(missing_ok=True)
    for path in old:
        path.unlink()
    for kind in ("slides", "annotations"):
        (folder / kind).mkdir(parents=True, exist_ok=True)


def _draw_shares(rng: np.random.Generator, count: int) -> np.ndarray:
    """Target shares of the patterns, shape (count, 5): sparse, with cycling predominant pattern."""
    n_classes = len(CANCER_CLASSES)
    shares = np.empty((count, n_classes))
    for k in range(count):
        if k % n_classes == 0:
            predominant = rng.permutation(n_classes)
        row = rng.dirichlet(np.full(n_classes, 0.7))
        top, first = row.argmax(), predominant[k % n_classes]
        row[[top, first]] = row[[first, top]]
        row[row < 0.08] = 0.0
        row[np.argsort(row)[: n_classes - 4]] = 0.0
        shares[k] = row / row.sum()
    return shares


def _record(shares: np.ndarray, noise: float, step: float, rng: np.random.Generator) -> list[float]:
    """Recorded percentages: noise on non-zero shares, then rounded to a sum of exactly 100."""
    errors = rng.normal(0, 1, shares.size) * noise / 100
    noisy = np.clip(np.where(shares > 0, shares + errors, 0.0), 0, None)
    if not noisy.any():  # all shares became 0: keep the largest
        noisy[shares.argmax()] = 1.0
    n_steps = round(100 / step)
    exact = noisy / noisy.sum() * n_steps
    whole = np.floor(exact + 1e-9)
    remainders = np.argsort(whole - exact, kind="stable")[: n_steps - int(whole.sum())]
    whole[remainders] += 1
    return [round(float(w), 6) for w in whole * 100 / n_steps]


def _make_slide(folder: Path, job: _Job) -> np.ndarray:
    """Make one slide and its outlines; return the shares of the patterns in its cancer area."""
    rng = np.random.default_rng(job.seed)
    stain = draw_stain(rng, job.stain_variation)
    architecture = draw_architecture(rng, job.architecture_variation)
    vague = rng.uniform(0.02, 0.06) if rng.random() < 0.7 else 0.0
    microns = (job.size[0] * MPP, job.size[1] * MPP)
    regions = draw_regions(rng, microns, job.shares, rng.uniform(0.15, 0.35), vague)
    texture, outline = _texture_map(rng, regions, job.size)
    layout = lay_out(rng, texture, outline, architecture)
    picture = paint(rng, job.size, texture, layout, architecture, stain)
    write_slide(folder / "slides" / f"{job.name}.tif", picture, MPP)
    outlines = polygonise(regions.labels, REGION_MICRONS / MPP, _OUTLINE_TOLERANCE)
    if job.role != "bag":
        write_outlines(folder / "annotations" / f"{job.name}.geojson", outlines, COLORS, rng)
    return class_shares(outlines)


def _texture_map(
    rng: np.random.Generator, regions: RegionMap, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Texture of every coarse pixel, and signed distance to the specimen boundary."""
    texture = np.full(regions.labels.shape, -1, np.int8)
    for number, name in enumerate(CANCER_CLASSES):
        texture[regions.labels == number] = TEXTURES.index(name)
    texture[regions.labels == CLASSES.index(VAGUE)] = TEXTURES.index("vague")
    airy = smooth_noise(rng, texture.shape, 380 / REGION_MICRONS) > rng.normal(0, 0.5)
    non_cancer = regions.labels == CLASSES.index(NON_CANCER)
    texture[non_cancer] = TEXTURES.index("fibrous stroma")
    texture[non_cancer & airy] = TEXTURES.index("normal lung")
    # beyond the boundary the nearest texture continues, so that the boundary can be drawn smoothly
    nearest = distance_transform_edt(texture < 0, return_distances=False, return_indices=True)
    texture = texture[tuple(nearest)]
    factor = round(REGION_MICRONS / MICRONS)
    height, width = (int(np.ceil(side * MPP / MICRONS)) for side in size[::-1])
    rim = gaussian_filter(regions.outline, 1.5)
    rim = resize_field(rim, tuple(n * factor for n in rim.shape))[:height, :width]
    rim += 7 * smooth_noise(rng, rim.shape, 45 / MICRONS)
    # tissues interdigitate: the border fluctuates around the outline
    rows, columns = (
        np.clip(
            (base + 6 * smooth_noise(rng, rim.shape, 50 / MICRONS)).astype(np.intp) // factor,
            0,
            top,
        )
        for base, top in zip(
            np.indices(rim.shape, dtype=np.float32),
            (texture.shape[0] - 1, texture.shape[1] - 1),
            strict=True,
        )
    )
    return np.where(rim > -20, texture[rows, columns], np.int8(-1)), rim
