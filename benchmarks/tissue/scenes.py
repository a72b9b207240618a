"""Pictures of slides of which every window's class, stain density and glass are known.

A scene is what the light passes: the transmittance of stained tissue at 1 um per pixel and a class map. It
is photographed with a stain density for each class (a factor in optical density), a color of the glass,
uneven light, dust, camera noise and JPEG. Scenes are painted like those of ``make_slides``, or put together
from real patches, window by window.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from proportion_ssl.datasets import _slides
from proportion_ssl.datasets._tissue.paint import MPP, paint
from proportion_ssl.datasets._tissue.patterns import draw_architecture, lay_out
from proportion_ssl.datasets._tissue.regions import CANCER_CLASSES, CLASSES, draw_regions
from proportion_ssl.datasets._tissue.stain import Stain, draw_stain

WINDOW = 224  # um: a patch of 224 pixels at 10x
N_WINDOWS = 10  # along a side of a slide
GLASS = -1


@dataclass(frozen=True)
class Scene:
    """Transmittance of the light in (0, 1], (height, width, 3) at 1 um, and a class for each window.

    ``windows`` (rows, columns) is an index into ``classes`` where a window is mostly of this class, -1
    where it is glass with a margin, -2 else. ``labels`` is the class of each pixel, at 8 um.
    """

    transmittance: np.ndarray
    labels: np.ndarray
    windows: np.ndarray
    classes: tuple[str, ...]


def paint_scene(seed: int) -> Scene:
    """Growth patterns of lung adenocarcinoma, non-cancer tissue and glass."""
    rng = np.random.default_rng(seed)
    side = round(N_WINDOWS * WINDOW / MPP)
    drawn = draw_stain(rng, 0.7)
    stain = Stain(drawn.vectors, np.ones(2), np.full(3, 250.0))
    shares = rng.dirichlet(np.full(len(CANCER_CLASSES), 3.0))
    regions = draw_regions(rng, (side * MPP, side * MPP), shares, 0.2, 0.0)
    texture, outline = _slides._texture_map(rng, regions, (side, side))
    architecture = draw_architecture(rng, 1.0)
    layout = lay_out(rng, texture, outline, architecture)
    picture = paint(rng, (side, side), texture, layout, architecture, stain)
    light = np.clip(block_mean(picture, 2) / 250.0, 1 / 256, 1.0).astype(np.float32)
    return Scene(light, regions.labels, _windows(regions.labels, regions.outline), CLASSES)


def _windows(labels, outline):
    """Class of windows at least half of which are of one class, as in the main job."""
    step = WINDOW // 8
    blocks = labels.reshape(N_WINDOWS, step, N_WINDOWS, step).swapaxes(1, 2)
    blocks = blocks.reshape(N_WINDOWS, N_WINDOWS, -1)
    counts = np.stack([(blocks == number).mean(axis=-1) for number in range(len(CLASSES))])
    windows = np.where(counts.max(axis=0) >= 0.5, counts.argmax(axis=0), -2)
    far = (outline < -40).reshape(N_WINDOWS, step, N_WINDOWS, step).all(axis=(1, 3))
    return np.where(far, GLASS, windows)


def compose_scene(seed: int, folder: Path, half: int, *, with_glass: bool = True) -> Scene:
    """Real patches of LC25000, one per window; ``half`` (0 or 1) chooses disjoint photographs."""
    rng = np.random.default_rng(seed)
    table = pd.read_csv(folder / "lc25000/groups.csv")
    number = table["source_tile"].str.extract(r"(\d+)$")[0].astype(int)
    table = table[number % 2 == half]
    classes = tuple(sorted(table["class"].unique()))
    shape = (N_WINDOWS, N_WINDOWS)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 1.5, mode="wrap") for _ in classes]
    windows = np.argmax(fields, axis=0)
    if with_glass:
        rows, columns = np.indices(shape) - (N_WINDOWS - 1) / 2
        radius = np.hypot(rows, columns) + 1.2 * ndimage.gaussian_filter(rng.normal(size=shape), 1)
        windows = np.where(radius < 0.45 * N_WINDOWS, windows, GLASS)
    return _mosaic(rng, folder / "lc25000", table, windows, classes)


def _mosaic(rng, folder, table, windows, classes):
    side = N_WINDOWS * WINDOW
    light = np.ones((side, side, 3), dtype=np.float32)
    for row, column in np.argwhere(windows >= 0):
        of_class = table[table["class"] == classes[windows[row, column]]]
        image = Image.open(folder / of_class["path"].iloc[rng.integers(len(of_class))])
        box = np.s_[row * WINDOW : (row + 1) * WINDOW, column * WINDOW : (column + 1) * WINDOW]
        light[box] = np.asarray(image.convert("RGB"), dtype=np.float32) / 245
    step = WINDOW // 8
    labels = np.repeat(np.repeat(windows, step, axis=0), step, axis=1)
    return Scene(np.clip(light, 1 / 256, 1.0), labels.astype(np.int8), windows, classes)


def photograph(
    scene: Scene,
    densities: np.ndarray,
    glass: tuple[int, int, int],
    seed: int,
    *,
    dust: bool = True,
    unscanned: float = 0.0,
    noise: float = 1.5,
) -> np.ndarray:
    """Picture at 1 um per pixel, (height, width, 3) uint8.

    ``densities`` has a factor on the optical density for each class; ``unscanned`` is the share of the
    slide's width, at the right, that the scanner left white.
    """
    rng = np.random.default_rng(seed)
    side = scene.transmittance.shape[0]
    factor = np.where(scene.labels >= 0, np.asarray(densities)[scene.labels], 1.0)
    nearest = np.arange(side) // 8
    picture = scene.transmittance ** factor[nearest[:, None], nearest][..., None].astype(np.float32)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    uneven = 1 + 0.012 * (rng.normal() * x + rng.normal() * y) - 0.012 * (x * x + y * y)
    tints = rng.normal(0, 0.004, (2, 3))
    uneven = uneven[..., None] + tints[0] * x[..., None] + tints[1] * y[..., None]
    picture *= uneven.astype(np.float32) * np.array(glass, dtype=np.float32)
    if dust:
        _strew_dust(rng, picture)
    picture += rng.normal(0, noise, picture.shape[:2])[..., None]
    picture += rng.normal(0, noise / 2, picture.shape)
    picture = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    if unscanned:
        picture[:, round(side * (1 - unscanned)) :] = 255
    return _compress(picture)


def _strew_dust(rng, picture):
    """Gray specks up to 60 um, and a hair 600 um long, which cover little of any window."""
    side = picture.shape[0]
    for _ in range(25):
        x, y = rng.uniform(40, side - 40, 2)
        _shade(picture, x, y, rng.uniform(4, 30), rng.uniform(0.4, 0.85))
    x, y = rng.uniform(0.15, 0.85, 2) * side
    angle = rng.uniform(0, 2 * np.pi)
    for _ in range(200):
        x, y = x + 3 * np.cos(angle), y + 3 * np.sin(angle)
        angle += rng.normal(0, 0.05)
        _shade(picture, x, y, 4, 0.85)


def _shade(picture, x, y, radius, light):
    """A round speck; what would lie outside the picture is left out."""
    top, left = max(0, int(y - radius)), max(0, int(x - radius))
    box = picture[top : int(y + radius) + 1, left : int(x + radius) + 1]
    rows, columns = np.indices(box.shape[:2])
    box[np.hypot(rows + top - y, columns + left - x) < radius] *= light


def _compress(picture, quality=80):
    """Through JPEG with colors at half the resolution, as scanners store slides."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(file))


def block_mean(picture: np.ndarray, factor: int) -> np.ndarray:
    """Mean of square blocks, as float32."""
    height, width = (n // factor for n in picture.shape[:2])
    cut = picture[: height * factor, : width * factor]
    return cut.reshape(height, factor, width, factor, -1).mean(axis=(1, 3), dtype=np.float32)


def overview(picture: np.ndarray, mpp: int) -> np.ndarray:
    """What ``Slide.thumbnail`` gives of a picture at 1 um per pixel."""
    return (block_mean(picture, mpp) + 0.5).astype(np.uint8)
