"""Architecture of synthetic lung tissue: positions of air, connective tissue and epithelium.

Every pattern is described by two signed lengths in microns on a coarse grid: `tissue`, positive
inside tissue and negative in air, and `core`, positive inside connective tissue. Between the two
(tissue > 0 > core) lies epithelium.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from proportion_ssl.datasets._tissue.fields import smooth_noise, tessellate

MICRONS = 2.0  # edge of a pixel of the coarse grid
TEXTURES = (
    "lepidic",
    "acinar",
    "papillary",
    "micropapillary",
    "solid",
    "normal lung",
    "fibrous stroma",
    "vague",
)
_FAR = np.float32(60.0)

# median over slides, standard deviation of its logarithm; lengths in microns
_SIZES = {
    "alveolus": (142.0, 0.16),
    "septum": (6.0, 0.28),
    "normal_septum": (3.2, 0.22),
    "gland_spacing": (112.0, 0.18),
    "gland_gap": (17.0, 0.40),
    "frond_width": (96.0, 0.16),
    "cleft": (6.5, 0.30),
    "tuft_spacing": (47.0, 0.14),
    "tuft_radius": (16.0, 0.16),
    "nest": (210.0, 0.25),
    "strand": (3.5, 0.40),
    "cuboidal": (10.0, 0.14),
    "columnar": (17.0, 0.16),
    "cell": (13.0, 0.10),
    "nucleus": (4.3, 0.10),
    "fiber": (8.0, 0.20),
}


@dataclass(frozen=True)
class Architecture:
    """Lengths (microns) and shares that describe the tissue of one slide.

    Attributes
    ----------
    sizes : dict of str to float
        Lengths in microns: keys of ``_SIZES``.
    vesicular : float
        Paleness of the center of tumor nuclei, 0 to 1.
    chromatin : float
        Factor on the hematoxylin of tumor nuclei.
    basophilia : float
        Hematoxylin of the tumor's cytoplasm.
    eosinophilia : float
        Eosin of the tumor's cytoplasm.
    collagen : float
        Eosin of connective tissue.
    inflammation : float
        Share of connective tissue infiltrated by lymphocytes.
    openness : float
        Share of interrupted septa, about 0 to 1.
    """

    sizes: dict[str, float]
    vesicular: float
    chromatin: float
    basophilia: float
    eosinophilia: float
    collagen: float
    inflammation: float
    openness: float


def draw_architecture(rng: np.random.Generator, variation: float) -> Architecture:
    """Draw the architecture of a slide; `variation` 0 gives every slide the medians."""

    def vary(median: float, spread: float) -> float:
        return float(median * np.exp(variation * spread * rng.standard_normal()))

    sizes = {name: vary(median, spread) for name, (median, spread) in _SIZES.items()}
    return Architecture(
        sizes,
        vesicular=min(0.95, vary(0.55, 0.35)),
        chromatin=vary(1.0, 0.14),
        basophilia=vary(0.22, 0.30),
        eosinophilia=vary(0.46, 0.20),
        collagen=vary(0.52, 0.18),
        inflammation=min(0.5, vary(0.12, 0.6)),
        openness=min(1.0, vary(0.5, 0.4)),
    )


@dataclass
class Layout:
    """Architecture of a slide on the coarse grid; every array has the grid's shape.

    Attributes
    ----------
    tissue : signed distance to air, microns, positive in tissue
    core : signed distance to the rim of connective tissue, microns, positive inside
    lining : where nuclei of epithelium may lie
    fluid : eosin concentration of what fills the air
    """

    tissue: np.ndarray
    core: np.ndarray
    lining: np.ndarray
    fluid: np.ndarray


class _Points:
    """The pixels of one texture: warped coordinates and noise maps read at them."""

    def __init__(self, rng, index, coordinates, noises):
        self.rng = rng
        self.index = index
        self.x, self.y = (c.ravel()[index] for c in coordinates)
        self._noises = noises

    def noise(self, name: str) -> np.ndarray:
        return self._noises[name].ravel()[self.index]

    def rotated(self, stretch: float) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates in a random direction, compressed along it by `stretch`."""
        angle = self.rng.uniform(0, np.pi)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return self.x * cos + self.y * sin, (self.y * cos - self.x * sin) / np.float32(stretch)


def _oval_distance(rng, cells, spread: float) -> np.ndarray:
    """Distance from the cell's center in a metric that makes each cell a different ellipse."""
    aspect = np.exp(rng.normal(0, spread, cells.n_cells)).astype(np.float32)[cells.cell]
    angle = rng.uniform(0, np.pi, cells.n_cells)[cells.cell]
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    u = (cells.dx * cos + cells.dy * sin) * aspect
    v = (cells.dy * cos - cells.dx * sin) / aspect
    return np.hypot(u, v)


def _septa(points: _Points, size: float, half: float, openness: float):
    """Signed distance to the surface of thin walls between airspaces, and the airspaces."""
    spaces = tessellate(points.rng, points.x, points.y, size, merged=0.22, rounding=7.0)
    width = half * (1 + 0.35 * points.noise("60"))
    # walls end where slow noise is low, so that alveoli are connected
    width -= 40 * openness * np.clip(-points.noise("140") - 0.95, 0, 1)
    return width - spaces.border, spaces


def _lepidic(points: _Points, a: Architecture):
    size, height = a.sizes, a.sizes["cuboidal"]
    core, spaces = _septa(points, size["alveolus"], size["septum"], a.openness)
    depth = -core
    lining = (depth > 0.2 * height) & (depth < 0.62 * height)
    return core + 0.72 * height, core, lining, _fluid(points.rng, spaces, 0.12, 0.10)


def _normal_lung(points: _Points, a: Architecture):
    core, spaces = _septa(points, a.sizes["alveolus"] * 0.95, a.sizes["normal_septum"], a.openness)
    return core + 0.6, core, np.zeros(core.shape, bool), _fluid(points.rng, spaces, 0.08, 0.10)


def _fluid(rng, spaces, share: float, most: float) -> np.ndarray:
    filled = rng.random(spaces.n_cells) < share
    eosin = np.where(filled, rng.uniform(0.03, most, spaces.n_cells), 0.0).astype(np.float32)
    return eosin[spaces.group]


def _acinar(points: _Points, a: Architecture):
    rng, size = points.rng, a.sizes
    glands = tessellate(rng, points.x, points.y, size["gland_spacing"], merged=0.10, rounding=9.0)
    radius = size["gland_spacing"] * 0.52 * np.exp(rng.normal(0, 0.24, glands.n_cells))
    radius[rng.random(glands.n_cells) < 0.05] = 0.0
    radius = radius.astype(np.float32)[glands.cell]
    inside = np.minimum(
        radius - _oval_distance(rng, glands, 0.14),
        glands.border - 0.5 * size["gland_gap"] * (1 + 0.4 * points.noise("60")),
    )
    height = size["columnar"] * (1 + 0.16 * points.noise("25"))
    lining = (inside > 0.22 * height) & (inside < 0.6 * height)
    return height - inside, -inside, lining, _fluid(rng, glands, 0.35, 0.22)


def _papillary(points: _Points, a: Architecture):
    rng, size = points.rng, a.sizes
    x, y = points.rotated(1.75)
    fronds = tessellate(rng, x, y, size["frond_width"], jitter=0.36, merged=0.30, rounding=4.0)
    gap = size["cleft"] * (1 + 0.55 * points.noise("60")) + 2.5 * points.noise("25")
    absent = (rng.random(fronds.n_cells) < 0.04)[fronds.cell]
    tissue = np.where(absent, -_FAR, fronds.border - gap).astype(np.float32)
    height = 0.86 * size["columnar"] * (1 + 0.12 * points.noise("25"))
    core = tissue - height
    lining = (-core > 0.2 * height) & (-core < 0.6 * height)
    return tissue, core, lining, np.zeros(core.shape, np.float32)


def _micropapillary(points: _Points, a: Architecture):
    rng, size = points.rng, a.sizes
    core, spaces = _septa(points, 1.5 * size["alveolus"], 0.7 * size["septum"], a.openness)
    height = size["cuboidal"]
    wall = core + 0.6 * height
    tufts = tessellate(rng, points.x, points.y, size["tuft_spacing"], jitter=0.38)
    radius = size["tuft_radius"] * np.exp(rng.normal(0, 0.28, tufts.n_cells))
    radius[rng.random(tufts.n_cells) < 0.16] = -_FAR
    tuft = radius.astype(np.float32)[tufts.cell] - _oval_distance(rng, tufts, 0.16)
    tuft = np.minimum(tuft, tufts.border - 2.0) + 2.0 * points.noise("12")
    tuft = np.minimum(tuft, -wall - 5.0)
    lining = ((-core > 0.2 * height) & (-core < 0.6 * height)) | (tuft > 3.2)
    return np.maximum(wall, tuft), core, lining, _fluid(rng, spaces, 0.15, 0.06)


def _solid(points: _Points, a: Architecture):
    rng, size = points.rng, a.sizes
    nests = tessellate(rng, points.x, points.y, size["nest"], merged=0.3)
    strand = size["strand"] * (1 + 1.1 * points.noise("60"))
    core = strand - nests.border
    tissue = np.full(core.shape, _FAR)
    return tissue, core, core < -4.5, np.zeros(core.shape, np.float32)


def _stroma(points: _Points, a: Architecture):
    rng = points.rng
    vessels = tessellate(rng, points.x, points.y, 230.0)
    radius = rng.uniform(8, 34, vessels.n_cells)
    radius[rng.random(vessels.n_cells) < 0.62] = -_FAR
    lumen = radius.astype(np.float32)[vessels.cell] - _oval_distance(rng, vessels, 0.25)
    tissue = np.minimum(-lumen, _FAR)
    core = np.full(tissue.shape, _FAR)
    return tissue, core, np.zeros(core.shape, bool), np.zeros(core.shape, np.float32)


def _vague(points: _Points, a: Architecture):
    tissue = 16 + 20 * points.noise("25") + 10 * points.noise("60")
    core = 22 * points.noise("60") - 6 + 8 * points.noise("25")
    lining = (tissue > 3) & (core < -2)
    return tissue, core, lining, np.full(core.shape, 0.06, np.float32)


_PATTERNS: tuple[Callable, ...] = (
    _lepidic,
    _acinar,
    _papillary,
    _micropapillary,
    _solid,
    _normal_lung,
    _stroma,
    _vague,
)


def lay_out(
    rng: np.random.Generator, texture: np.ndarray, outline: np.ndarray, a: Architecture
) -> Layout:
    """Architecture of a slide.

    Parameters
    ----------
    texture : ndarray of shape (height, width), int
        Index into ``TEXTURES`` for every coarse pixel, -1 on glass.
    outline : ndarray of shape (height, width)
        Signed distance to the rim of the specimen, microns, positive inside.
    a : Architecture
    """
    shape = texture.shape
    noises = {
        name: smooth_noise(rng, shape, float(name) / MICRONS) for name in ("12", "25", "60", "140")
    }
    rows, columns = np.indices(shape, dtype=np.float32) * np.float32(MICRONS)
    # slow warping bends and locally stretches the architecture; fast warping roughens outlines
    coordinates = [
        base
        + np.float32(34) * smooth_noise(rng, shape, 190 / MICRONS)
        + np.float32(5.5) * smooth_noise(rng, shape, 38 / MICRONS)
        for base in (columns, rows)
    ]
    tissue = np.full(shape, -_FAR, np.float32)
    core = np.full(shape, -_FAR, np.float32)
    fluid = np.zeros(shape, np.float32)
    lining = np.zeros(shape, bool)
    for number, pattern in enumerate(_PATTERNS):
        index = np.flatnonzero(texture == number)
        own = np.random.default_rng(rng.integers(2**63))
        if not index.size:
            continue
        points = _Points(own, index, coordinates, noises)
        values = pattern(points, a)
        for target, value in zip((tissue, core, lining, fluid), values, strict=True):
            target.ravel()[index] = value
    np.minimum(tissue, outline, out=tissue)
    np.minimum(core, outline, out=core)
    lining &= outline > 3
    fluid[outline < 0] = 0
    return Layout(tissue, core, lining, fluid)
