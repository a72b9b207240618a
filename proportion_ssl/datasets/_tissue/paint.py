"""Render a slide from its architecture: place cells, mix stains, absorb light."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from proportion_ssl.datasets._tissue.cells import (
    GRAY_LEVELS,
    Nuclei,
    Ovals,
    stamp_bodies,
    stamp_discs,
    stamp_nuclei,
)
from proportion_ssl.datasets._tissue.fields import (
    pack_points,
    periodic_noise,
    smooth_noise,
    upsample_rows,
)
from proportion_ssl.datasets._tissue.patterns import MICRONS, TEXTURES, Architecture, Layout
from proportion_ssl.datasets._tissue.stain import Stain, absorb

MPP = 0.5  # microns per pixel of the picture
FACTOR = round(MICRONS / MPP)  # pixels of the picture per coarse pixel
_ROWS = 64  # coarse rows painted at a time
_LEPIDIC, _ACINAR, _PAPILLARY, _MICRO, _SOLID, _NORMAL, _STROMA, _VAGUE = range(len(TEXTURES))


@dataclass(frozen=True)
class _Style:
    """Appearance of the epithelium of a texture; lengths relative to the sizes of the slide.

    Attributes
    ----------
    height : name of the size that is the height of the cells
    body : semi-axes of the cell body: along the height in multiples of it, across in `cell`
    shift : of the body from the nucleus towards the surface, in multiples of the height
    nucleus : semi-axes of the nucleus in multiples of `nucleus`
    spread : of orientation and size
    gap : distance of neighboring cells in multiples of `cell`
    chromatin : factor on the hematoxylin of the nuclei
    """

    height: str
    body: tuple[float, float]
    shift: float
    nucleus: tuple[float, float]
    spread: float
    gap: float
    chromatin: float


_EPITHELIUM = {
    _LEPIDIC: _Style("cuboidal", (0.62, 0.52), 0.16, (0.97, 0.86), 0.16, 0.74, 0.95),
    _ACINAR: _Style("columnar", (0.60, 0.46), 0.22, (1.22, 0.86), 0.13, 0.60, 1.0),
    _PAPILLARY: _Style("columnar", (0.55, 0.45), 0.18, (1.25, 0.84), 0.13, 0.58, 1.0),
    _MICRO: _Style("cuboidal", (0.58, 0.54), 0.05, (1.04, 0.90), 0.15, 0.66, 1.15),
    _SOLID: _Style("cell", (0.66, 0.60), 0.0, (1.20, 1.04), 0.17, 0.90, 0.95),
    _VAGUE: _Style("cell", (0.62, 0.48), 0.0, (1.25, 0.70), 0.25, 0.68, 1.0),
}
# factors per texture, in the order of TEXTURES: glands make mucin (bluish cytoplasm), fronds have
# pink cells on pale cores, sheets are amphophilic, tufts dark
_EOSIN = np.array([0.95, 0.82, 1.22, 1.08, 0.88, 1.0, 1.0, 0.95], np.float32)
_BLUE = np.array([0.85, 1.40, 0.75, 1.15, 1.50, 1.0, 1.0, 1.10], np.float32)
_COLLAGEN = np.array([1.0, 1.10, 0.80, 0.95, 0.95, 0.95, 1.0, 0.95], np.float32)


@dataclass
class _Layers:
    """Full-resolution uint8 layers that cells are stamped into."""

    body: np.ndarray
    opacity: np.ndarray
    hematoxylin: np.ndarray
    red: np.ndarray
    hole: np.ndarray


def _positions(rng: np.random.Generator, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A random position in each coarse pixel, in pixels of the image."""
    places = (cells + rng.uniform(0, 1, cells.shape)) * FACTOR
    return places[:, 1], places[:, 0]


def _gradient(field: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient along x and y at some coarse pixels, over four pixels to even out noise."""
    rows, columns = cells.T
    bottom, right = field.shape[0] - 1, field.shape[1] - 1
    along_x = field[rows, np.minimum(columns + 2, right)] - field[rows, np.maximum(columns - 2, 0)]
    along_y = field[np.minimum(rows + 2, bottom), columns] - field[np.maximum(rows - 2, 0), columns]
    return along_x, along_y


def _put_epithelium(rng, texture, layout: Layout, a: Architecture, patchy, layers: _Layers):
    size = a.sizes
    pixels = 1 / MPP
    for number, style in _EPITHELIUM.items():
        occupied = np.zeros(texture.shape, np.uint8)
        allowed = layout.lining & (texture == number)
        cells = pack_points(rng, occupied, allowed, style.gap * size["cell"] / MICRONS)
        n = len(cells)
        if not n:
            continue
        x, y = _positions(rng, cells)
        gx, gy = _gradient(layout.tissue, cells)
        flat = np.hypot(gx, gy) < 0.3  # no surface nearby: any direction
        away = np.where(flat, rng.uniform(-np.pi, np.pi, n), np.arctan2(-gy, -gx))
        away = away + rng.normal(0, style.spread, n)
        local = 1 + 0.09 * patchy[cells[:, 0], cells[:, 1]]
        scale = local * np.exp(rng.normal(0, 0.8 * style.spread, n))
        height = size[style.height]
        shift = style.shift * height * pixels
        body = Ovals(
            x + shift * np.cos(away),
            y + shift * np.sin(away),
            style.body[0] * height * pixels * np.exp(rng.normal(0, 0.10, n)),
            style.body[1] * size["cell"] * pixels * np.exp(rng.normal(0, 0.10, n)),
            away,
        )
        stamp_bodies(body, layers.body, power=1.5)
        major = style.nucleus[0] * size["nucleus"] * scale * pixels
        minor = style.nucleus[1] * size["nucleus"] * scale * pixels
        nuclei = Nuclei(
            x,
            y,
            np.maximum(major, minor) * np.exp(rng.normal(0, 0.07, n)),
            np.minimum(major, minor) * np.exp(rng.normal(0, 0.07, n)),
            away + rng.normal(0, 0.25, n) + np.where(rng.random(n) < 0.1, np.pi / 2, 0.0),
            concentration=1.35 * style.chromatin * a.chromatin * np.exp(rng.normal(0, 0.17, n)),
            vesicular=np.clip(a.vesicular + rng.normal(0, 0.18, n), 0, 1),
            nucleolus=np.where(rng.random(n) < 0.45, rng.uniform(0.2, 0.9, n), 0.0),
            irregular=np.abs(rng.normal(0, 0.13, n)),
        )
        stamp_nuclei(rng, nuclei, layers.opacity, layers.hematoxylin)


def _spindle(rng, x, y, angle, length, width, concentration) -> Nuclei:
    n = len(x)
    return Nuclei(
        x,
        y,
        length * np.exp(rng.normal(0, 0.25, n)) / MPP,
        width * np.exp(rng.normal(0, 0.18, n)) / MPP,
        angle + rng.normal(0, 0.22, n),
        concentration=concentration * np.exp(rng.normal(0, 0.2, n)),
        vesicular=rng.uniform(0.0, 0.35, n),
        nucleolus=np.zeros(n),
        irregular=np.abs(rng.normal(0, 0.15, n)),
    )


def _put_connective_cells(rng, texture, layout: Layout, a: Architecture, fiber, inflamed, layers):
    core = layout.core
    occupied = np.zeros(core.shape, np.uint8)
    in_core = (core > 0.3) & (layout.tissue > 1.2)
    # lymphocytes: dense where tissue is inflamed, a few anywhere
    dense = pack_points(rng, occupied, in_core & inflamed & (core > 2), 6.6 / MICRONS)
    sparse = in_core & (rng.random(core.shape) < 0.012)
    lymphocytes = np.concatenate([dense, pack_points(rng, occupied, sparse, 7.0 / MICRONS)])
    n = len(lymphocytes)
    x, y = _positions(rng, lymphocytes)
    radius = 2.9 * np.exp(rng.normal(0, 0.10, n)) / MPP
    round_nuclei = Nuclei(
        x,
        y,
        radius * 1.06,
        radius * 0.96,
        rng.uniform(0, np.pi, n),
        concentration=1.95 * np.exp(rng.normal(0, 0.12, n)),
        vesicular=rng.uniform(0, 0.2, n),
        nucleolus=np.zeros(n),
        irregular=np.abs(rng.normal(0, 0.08, n)),
    )
    stamp_nuclei(rng, round_nuclei, layers.opacity, layers.hematoxylin)
    # fibroblasts in thick connective tissue lie along the fibers, in thin septa along the septum
    allowed = in_core & ~inflamed
    thick = pack_points(rng, occupied, allowed & (core > 9), 15.0 / MICRONS)
    thin = pack_points(rng, occupied, allowed & (core <= 9), 10.5 / MICRONS)
    for cells, field, length, width in ((thick, fiber, 6.0, 1.5), (thin, core, 4.6, 1.55)):
        gx, gy = _gradient(field, cells)
        x, y = _positions(rng, cells)
        angle = np.arctan2(gy, gx) + np.pi / 2
        stamp_nuclei(
            rng,
            _spindle(rng, x, y, angle, length, width, 1.45),
            layers.opacity,
            layers.hematoxylin,
        )
    _put_capillaries(rng, texture, layout, layers)


def _put_capillaries(rng, texture, layout: Layout, layers: _Layers):
    """Small vessels with red cells: in the cores of fronds, in septa, and sparsely elsewhere."""
    core = layout.core
    occupied = np.zeros(core.shape, np.uint8)
    chance = np.where(texture == _PAPILLARY, 0.02, 0.0007).astype(np.float32)
    chance[texture == _NORMAL] = 0.05
    wide = (core > 5.5) & (rng.random(core.shape, dtype=np.float32) < chance)
    cells = pack_points(rng, occupied, wide, 26.0 / MICRONS)
    n = len(cells)
    gx, gy = _gradient(core, cells)
    x, y = _positions(rng, cells)
    inner = np.minimum(core[cells[:, 0], cells[:, 1]] * 0.55, rng.uniform(3.0, 7.5, n)) / MPP
    vessel = Ovals(x, y, inner * rng.uniform(1.0, 1.9, n), inner, np.arctan2(gy, gx) + np.pi / 2)
    stamp_discs(vessel, layers.hole, np.ones(n))
    rim = np.repeat(np.arange(n), 3)
    turn = rng.uniform(-np.pi, np.pi, rim.size)
    along, across = np.cos(turn) * vessel.major[rim], np.sin(turn) * vessel.minor[rim]
    cos, sin = np.cos(vessel.angle[rim]), np.sin(vessel.angle[rim])
    endothelium = _spindle(
        rng,
        x[rim] + 1.08 * (along * cos - across * sin),
        y[rim] + 1.08 * (along * sin + across * cos),
        vessel.angle[rim]
        + np.arctan2(np.cos(turn) * vessel.minor[rim], -np.sin(turn) * vessel.major[rim]),
        3.6,
        1.2,
        1.5,
    )
    stamp_nuclei(rng, endothelium, layers.opacity, layers.hematoxylin)
    _put_red_cells(rng, x, y, inner, 3, layers)
    # blood in the large vessels of fibrous tissue, a little in airspaces
    in_vessel = (texture == _STROMA) & (layout.tissue < -2.5)
    in_vessel &= smooth_noise(rng, core.shape, 60 / MICRONS) > 0.1
    spilled = (layout.tissue < -6) & (rng.random(core.shape, dtype=np.float32) < 0.0004)
    spilled &= texture >= 0
    blood = pack_points(rng, occupied, in_vessel | spilled, 5.0 / MICRONS)
    bx, by = _positions(rng, blood)
    _put_red_cells(rng, bx, by, np.zeros(len(blood)), 1, layers)


def _put_red_cells(rng, x, y, radius, count: int, layers: _Layers):
    which = np.repeat(np.arange(len(x)), count)
    n = which.size
    turn, out = rng.uniform(-np.pi, np.pi, n), np.sqrt(rng.random(n)) * 0.6 * radius[which]
    size = rng.uniform(2.7, 3.4, n) / MPP
    cells = Ovals(
        x[which] + out * np.cos(turn),
        y[which] + out * np.sin(turn),
        size,
        size * rng.uniform(0.75, 1.0, n),
        rng.uniform(0, np.pi, n),
    )
    stamp_discs(cells, layers.red, rng.uniform(0.6, 1.0, n), dimple=0.35)


def _put_macrophages(rng, texture, layout: Layout, layers: _Layers):
    """Foamy macrophages in the airspaces of normal lung."""
    airy = np.isin(texture, (_LEPIDIC, _NORMAL)) & (layout.tissue < -11)
    few = airy & (rng.random(texture.shape, dtype=np.float32) < 0.0009)
    cells = pack_points(rng, np.zeros(texture.shape, np.uint8), few, 14 / MICRONS)
    n = len(cells)
    x, y = _positions(rng, cells)
    size = rng.uniform(5.5, 8.5, n) / MPP
    body = Ovals(x, y, size, size * rng.uniform(0.8, 1.0, n), rng.uniform(0, np.pi, n))
    stamp_bodies(body, layers.body, power=2.0)
    off = rng.uniform(-0.35, 0.35, (2, n)) * size
    nuclei = Nuclei(
        x + off[0],
        y + off[1],
        size * 0.48,
        size * 0.38,
        rng.uniform(0, np.pi, n),
        concentration=1.2 * np.exp(rng.normal(0, 0.15, n)),
        vesicular=rng.uniform(0.1, 0.5, n),
        nucleolus=np.zeros(n),
        irregular=np.full(n, 0.15),
    )
    stamp_nuclei(rng, nuclei, layers.opacity, layers.hematoxylin)


def _clip01(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0.0, 1.0, out=values)


class _Tiled:
    """A periodic tile, read as rows of an infinite image."""

    def __init__(self, tile: np.ndarray, width: int):
        repeats = -(-width // tile.shape[1])
        self._wide = np.tile(tile, (1, repeats))[:, :width]

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._wide[np.arange(start, stop) % self._wide.shape[0]]


def paint(
    rng: np.random.Generator,
    size: tuple[int, int],
    texture: np.ndarray,
    layout: Layout,
    a: Architecture,
    stain: Stain,
) -> np.ndarray:
    """Picture of a slide.

    Parameters
    ----------
    size : (width, height) of the picture, pixels of ``MPP`` microns
    texture, layout, a, stain :
        See `lay_out` and `draw_stain`.

    Returns
    -------
    picture : ndarray of shape (height, width, 3), uint8
    """
    width, height = size
    coarse = texture.shape
    full = (coarse[0] * FACTOR, coarse[1] * FACTOR)
    layers = _Layers(*(np.zeros(full, np.uint8) for _ in range(5)))
    rows, columns = np.indices(coarse, dtype=np.float32) * np.float32(MICRONS)
    turn = rng.uniform(0, np.pi)
    fiber = (columns * np.cos(turn) + rows * np.sin(turn)).astype(np.float32)
    fiber += 75 * smooth_noise(rng, coarse, 170 / MICRONS)
    fiber += 10 * smooth_noise(rng, coarse, 45 / MICRONS)
    patchy = smooth_noise(rng, coarse, 260 / MICRONS)
    clusters = smooth_noise(rng, coarse, 90 / MICRONS) + 0.5 * smooth_noise(
        rng, coarse, 30 / MICRONS
    )
    inflamed = clusters > 1.1 * np.sqrt(2) * ndtri(1 - a.inflammation)
    inflamed &= ~np.isin(texture, (_NORMAL,))
    _put_epithelium(rng, texture, layout, a, patchy, layers)
    _put_connective_cells(rng, texture, layout, a, fiber, inflamed, layers)
    _put_macrophages(rng, texture, layout, layers)

    depth = 1 + 0.07 * smooth_noise(rng, coarse, 400 / MICRONS)  # thickness of the section
    depth = np.where(texture == _VAGUE, 0.85 * depth, depth).astype(np.float32)
    cytoplasm = a.eosinophilia * (1 + 0.12 * patchy) * _EOSIN[texture]
    basophilia = a.basophilia * _BLUE[texture]
    collagen = (
        a.collagen * _COLLAGEN[texture] * (1 + 0.14 * smooth_noise(rng, coarse, 120 / MICRONS))
    )
    bundles = smooth_noise(rng, coarse, 22 / MICRONS)  # visibility of fibers
    grains = [_Tiled(periodic_noise(rng, 1024, s), full[1]) for s in (0.9, 2.0, 6.0)]
    camera = _Tiled(periodic_noise(rng, 512, 0.5), full[1])
    picture = np.empty((height, width, 3), np.uint8)
    for start in range(0, coarse[0], _ROWS):
        stop = min(start + _ROWS, coarse[0])
        top, bottom = start * FACTOR, min(stop * FACTOR, height)
        if bottom <= top:
            break

        def enlarge(field, start=start, stop=stop):
            return upsample_rows(field, FACTOR, start, stop)

        part = slice(start * FACTOR, stop * FACTOR)
        fine, medium, broad = (g.rows(part.start, part.stop) for g in grains)
        tissue, core = enlarge(layout.tissue), enlarge(layout.core)
        rough = 0.45 * medium + 0.5 * broad
        inside = _clip01((tissue + rough) / 1.1 + 0.5)
        connective = _clip01((core + rough) / 1.6 + 0.5)
        body = layers.body[part] * np.float32(1 / 255)
        inside = np.maximum(inside, _clip01(body * 5.0))
        inside *= 1 - layers.hole[part] * np.float32(1 / 255)
        membrane = (1 - body) ** 3
        wave = np.cos(
            enlarge(fiber) * np.float32(2 * np.pi / a.sizes["fiber"]) + 1.5 * broad + 0.5 * medium
        )
        strands = _clip01(0.55 + 0.45 * enlarge(bundles) + 0.2 * broad)
        wave *= strands
        pink = enlarge(collagen) * (0.95 + 0.20 * wave + 0.08 * medium + 0.10 * broad)
        cell = enlarge(cytoplasm)
        cell *= 0.88 + 0.22 * membrane + 0.07 * medium + 0.07 * broad + 0.05 * fine
        eosin = cell + connective * (pink - cell)
        blue = enlarge(basophilia) * (1 + 0.12 * broad + 0.1 * medium - 0.2 * membrane)
        blue += connective * (0.07 - blue)
        thickness = enlarge(depth)
        inside *= thickness
        eosin *= inside
        blue *= inside
        fluid = enlarge(layout.fluid)
        eosin += np.maximum(fluid, 0) * np.maximum(1 - inside, 0) * (1 + 0.12 * broad)
        opacity = layers.opacity[part] * np.float32(1 / 255)
        chromatin = layers.hematoxylin[part] * np.float32(1 / GRAY_LEVELS["concentration"])
        chromatin *= thickness * (1 + 0.13 * fine + 0.12 * medium)
        blue += opacity * (chromatin - blue) * (chromatin > 0)
        eosin *= 1 - 0.55 * opacity
        red = layers.red[part] * np.float32(1 / 255)
        eosin += red * (0.85 - 0.6 * eosin)
        blue *= 1 - red
        colors = absorb(
            np.maximum(blue, 0),
            np.maximum(eosin, 0),
            stain,
            2.0 * camera.rows(part.start, part.stop),
        )
        picture[top:bottom] = colors[: bottom - top, :width]
    return picture
