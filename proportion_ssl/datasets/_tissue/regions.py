"""Layout of classes on a synthetic slide: specimen outline, regions, polygons, shares."""

from dataclasses import dataclass

import numpy as np
import shapely
from scipy import ndimage

from proportion_ssl.datasets._tissue.fields import smooth_noise

CANCER_CLASSES = ("lepidic", "acinar", "papillary", "micropapillary", "solid")
NON_CANCER, VAGUE = "non-cancer", "vague"
CLASSES = (*CANCER_CLASSES, NON_CANCER, VAGUE)
# red, yellow, green, cyan, blue as in the published figures; gray and black for the rest
COLORS = {
    "lepidic": (255, 0, 0),
    "acinar": (255, 255, 0),
    "papillary": (0, 255, 0),
    "micropapillary": (0, 255, 255),
    "solid": (0, 0, 255),
    "non-cancer": (160, 160, 160),
    "vague": (0, 0, 0),
}
GLASS = -1
REGION_MICRONS = 8.0  # edge of a pixel of the region map


@dataclass(frozen=True)
class RegionMap:
    """Regions of a slide on a grid of ``REGION_MICRONS``.

    Attributes
    ----------
    labels : ndarray of shape (height, width), int8
        Index into ``CLASSES``; ``GLASS`` outside the specimen.
    outline : ndarray of shape (height, width), float32
        Signed distance to the rim of the specimen, microns, positive inside.
    """

    labels: np.ndarray
    outline: np.ndarray


def _specimen(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """An irregular connected blob without holes that covers about `share` of the slide."""
    height, width = shape
    y = (np.arange(height)[:, None] + 0.5) / height * 2 - 1
    x = (np.arange(width)[None] + 0.5) / width * 2 - 1
    angle, aspect = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.10))
    u = (x * np.cos(angle) + y * np.sin(angle)) * aspect
    v = (y * np.cos(angle) - x * np.sin(angle)) / aspect
    size = max(shape)
    field = -((np.abs(u) ** 2.4 + np.abs(v) ** 2.4) ** (1 / 2.4))
    field = field + 0.14 * smooth_noise(rng, shape, size / 3)
    field += 0.04 * smooth_noise(rng, shape, size / 11)
    # keep away from the edges of the slide, with round corners
    margin = np.maximum(np.abs(x), np.abs(y))
    field -= 12 * np.clip(margin - 0.78, 0, None) ** 2
    field = np.where(margin > 0.965, -np.inf, field)
    blob = field > np.quantile(field, 1 - share)
    pieces, n_pieces = ndimage.label(blob)
    if n_pieces > 1:
        blob = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return ndimage.binary_fill_holes(blob)


def _partition(
    rng: np.random.Generator, inside: np.ndarray, shares: np.ndarray, scale: float
) -> np.ndarray:
    """Smooth regions inside a mask whose areas have (about) the given shares.

    Each class has a smooth random field; a pixel gets the class with the largest sum of field and offset.
    Offsets are adjusted until the shares agree.
    """
    present = np.flatnonzero(shares > 0)
    fields = np.stack([smooth_noise(rng, inside.shape, scale)[inside] for _ in present])
    target = shares[present] / shares[present].sum()
    offset = np.zeros(len(present), np.float32)
    for step in range(60):
        found = np.bincount((fields + offset[:, None]).argmax(axis=0), minlength=len(present))
        error = target - found / found.sum()
        if np.abs(error).max() < 0.003:
            break
        offset += (2.5 * 0.96**step * error).astype(np.float32)
    labels = np.full(inside.shape, GLASS, np.int8)
    labels[inside] = present[(fields + offset[:, None]).argmax(axis=0)]
    return labels


def _absorb_fragments(labels: np.ndarray, smallest: int) -> np.ndarray:
    """Assign connected pieces below `smallest` pixels to the nearest larger region."""
    lost = np.zeros(labels.shape, bool)
    for value in np.unique(labels[labels != GLASS]):
        pieces, _ = ndimage.label(labels == value)
        small = np.bincount(pieces.ravel()) < smallest
        small[0] = False
        lost |= small[pieces]
    kept = (labels != GLASS) & ~lost
    if not lost.any() or not kept.any():
        return labels
    nearest = ndimage.distance_transform_edt(~kept, return_distances=False, return_indices=True)
    return np.where(lost, labels[tuple(nearest)], labels)


def draw_regions(
    rng: np.random.Generator,
    size: tuple[float, float],
    shares: np.ndarray,
    non_cancer: float,
    vague: float,
) -> RegionMap:
    """Draw the regions of a slide.

    Parameters
    ----------
    size : (width, height) of the slide, microns
    shares : ndarray of shape (5,)
        Target shares of the cancer classes in the cancer area; sum 1.
    non_cancer : share of the specimen that is not cancer
    vague : share of the specimen that is vague, taken from cancer
    """
    width, height = (int(np.ceil(s / REGION_MICRONS)) for s in size)
    shape = (height, width)
    inside = _specimen(rng, shape, rng.uniform(0.62, 0.74))
    wanted = np.append(shares * (1 - non_cancer), non_cancer)
    extent = np.sqrt(inside.sum())
    labels = _partition(rng, inside, wanted, 0.42 * extent)
    smallest = int(min((200 / REGION_MICRONS) ** 2, 0.02 * inside.sum()))
    labels = _absorb_fragments(labels, smallest)
    if vague > 0:
        cancer = (labels >= 0) & (labels < len(CANCER_CLASSES))
        field = smooth_noise(rng, shape, 0.16 * extent)
        count = int(vague * inside.sum())
        if count and cancer.sum() > 4 * count:
            chosen = cancer & (field > np.partition(field[cancer], -count)[-count])
            pieces, _ = ndimage.label(chosen)
            sizes = np.bincount(pieces.ravel())
            large = sizes >= min(smallest // 2, count // 3)
            large[0] = False
            labels = np.where(large[pieces], np.int8(CLASSES.index(VAGUE)), labels)
            labels = _absorb_fragments(labels, smallest // 4)
    outline = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    return RegionMap(labels, (outline * REGION_MICRONS).astype(np.float32))


def polygonise(
    labels: np.ndarray, scale: float, tolerance: float
) -> dict[str, shapely.MultiPolygon]:
    """Outlines of the regions of each class that occurs, in the order of ``CLASSES``.

    Staircases are simplified by `tolerance` for all regions together, so that neighbors still share their
    borders exactly, without gaps or overlaps.

    Parameters
    ----------
    labels : ndarray of shape (height, width)
        Index into ``CLASSES`` or ``GLASS``.
    scale : length of a pixel edge in the unit wanted
    tolerance : in the same unit
    """
    padded = np.pad(labels, 1, constant_values=GLASS)
    rows, columns = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = np.stack([columns, rows, columns, rows + 1], axis=-1)
    rows, columns = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    level = np.stack([columns, rows, columns + 1, rows], axis=-1)
    edges = np.concatenate([upright, level]).reshape(-1, 2, 2) * scale
    # edges between different pixels meet only at their ends, so they are noded already
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(edges)))
    points = shapely.point_on_surface(faces)
    column = np.floor(shapely.get_x(points) / scale).astype(int)
    row = np.floor(shapely.get_y(points) / scale).astype(int)
    found = labels[np.clip(row, 0, labels.shape[0] - 1), np.clip(column, 0, labels.shape[1] - 1)]
    # the order of faces in GEOS is not defined; a fixed order makes files reproducible
    bounds = shapely.bounds(faces)
    order = np.lexsort((*bounds.T, found))
    faces, found = faces[order], found[order]
    faces, found = faces[found != GLASS], found[found != GLASS]
    simple = shapely.coverage_simplify(faces, tolerance)
    return {
        name: shapely.MultiPolygon(simple[found == number].tolist())
        for number, name in enumerate(CLASSES)
        if (found == number).any()
    }


def class_shares(outlines: dict[str, shapely.MultiPolygon]) -> np.ndarray:
    """Share of each cancer class in the cancer area of a slide, without vague regions."""
    areas = np.array([outlines[c].area if c in outlines else 0.0 for c in CANCER_CLASSES])
    return areas / areas.sum()
