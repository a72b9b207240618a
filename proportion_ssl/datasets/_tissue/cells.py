"""Draw nuclei, cell bodies and red blood cells as small images stamped into full-resolution layers."""

from dataclasses import dataclass, fields

import numpy as np

# a layer is uint8; this many gray levels are one unit of concentration (or of opacity)
GRAY_LEVELS = {"opacity": 255.0, "concentration": 100.0}
_BATCH = 1024


@dataclass
class Ovals:
    """Ellipse-like objects; every attribute is an array of shape (n_objects,).

    Attributes
    ----------
    x, y : center, pixels
    major, minor : semi-axes, pixels
    angle : direction of the major axis, radians
    """

    x: np.ndarray
    y: np.ndarray
    major: np.ndarray
    minor: np.ndarray
    angle: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: np.ndarray) -> "Ovals":
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass
class Nuclei(Ovals):
    """Nuclei.

    Attributes
    ----------
    concentration : hematoxylin at the center of the nucleus
    vesicular : 0 = evenly dark; 1 = pale center, dark membrane
    nucleolus : hematoxylin added by the nucleolus, 0 = none
    irregular : 0 = ellipse; about 0.5 = strongly lopsided
    """

    concentration: np.ndarray
    vesicular: np.ndarray
    nucleolus: np.ndarray
    irregular: np.ndarray


def _radius_squared(
    ovals: Ovals, box: int, lopsided: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared distance from the centers in units of the semi-axes, and the two coordinates."""
    span = np.arange(box, dtype=np.float32) - box // 2
    dx = span[None, None, :] - (ovals.x - np.floor(ovals.x)).astype(np.float32)[:, None, None]
    dy = span[None, :, None] - (ovals.y - np.floor(ovals.y)).astype(np.float32)[:, None, None]
    cos = np.cos(ovals.angle).astype(np.float32)[:, None, None]
    sin = np.sin(ovals.angle).astype(np.float32)[:, None, None]
    u = (dx * cos + dy * sin) / ovals.major.astype(np.float32)[:, None, None]
    v = (dy * cos - dx * sin) / ovals.minor.astype(np.float32)[:, None, None]
    squared = u * u + v * v
    if lopsided is not None:
        a, b, c = lopsided.astype(np.float32)[:, :, None, None]
        squared = squared * np.maximum(1 + a * u + b * v + c * u * v, 0.4)
    return squared, u, v


def _stamp(layer: np.ndarray, stamps: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Stamp squares into the layer, keeping the larger value; parts outside are clipped."""
    box = stamps.shape[1]
    height, width = layer.shape
    tops = (np.floor(y).astype(np.intp) - box // 2).tolist()
    lefts = (np.floor(x).astype(np.intp) - box // 2).tolist()
    for stamp, top, left in zip(stamps, tops, lefts, strict=True):
        if top < 0 or left < 0 or top + box > height or left + box > width:
            t, b = max(0, -top), box - max(0, top + box - height)
            lft, r = max(0, -left), box - max(0, left + box - width)
            if t >= b or lft >= r:
                continue
            stamp = stamp[t:b, lft:r]
            top, left = top + t, left + lft
        window = layer[top : top + stamp.shape[0], left : left + stamp.shape[1]]
        np.maximum(window, stamp, out=window)


def _batches(ovals: Ovals, margin: float):
    """Batches of objects sorted by size, with the smallest box that contains them."""
    order = np.argsort(ovals.major, kind="stable")
    for start in range(0, len(order), _BATCH):
        index = order[start : start + _BATCH]
        batch = ovals.take(index)
        yield index, batch, 2 * int(np.ceil(batch.major.max() * margin + 2)) + 1


def stamp_nuclei(
    rng: np.random.Generator, nuclei: Nuclei, opacity: np.ndarray, concentration: np.ndarray
) -> None:
    """Draw nuclei: their shape into `opacity`, their hematoxylin into `concentration`."""
    if not len(nuclei):
        return
    lopsided = rng.normal(0.0, 1.0, (3, len(nuclei))) * nuclei.irregular
    spot = rng.uniform(-0.35, 0.35, (2, len(nuclei))).astype(np.float32)
    for index, batch, box in _batches(nuclei, 1.35):
        squared, u, v = _radius_squared(batch, box, lopsided[:, index])
        radius = np.sqrt(squared)
        edge = np.sqrt(batch.major * batch.minor).astype(np.float32)[:, None, None] / 1.9
        alpha = np.clip((1 - radius) * edge + 0.5, 0, 1)
        pale = batch.vesicular.astype(np.float32)[:, None, None]
        # a chromatin rim: darkest at 85% of the radius
        value = 1 - pale * (0.55 - 0.95 * np.minimum(squared, 1.0) ** 1.5)
        pattern = batch.concentration.astype(np.float32)[:, None, None] * value
        around = (u - spot[0, index, None, None]) ** 2 + (v - spot[1, index, None, None]) ** 2
        pattern += batch.nucleolus.astype(np.float32)[:, None, None] * np.exp(-around * 22.0)
        gray = np.clip(alpha * pattern * GRAY_LEVELS["concentration"], 0, 255)
        _stamp(concentration, gray.astype(np.uint8), batch.x, batch.y)
        _stamp(opacity, (alpha * 255).astype(np.uint8), batch.x, batch.y)


def stamp_bodies(ovals: Ovals, layer: np.ndarray, power: float = 1.0) -> None:
    """Draw cell bodies: 255 at the center, falling to 0 at the membrane.

    Where bodies overlap the larger value is kept, so that the border of two cells is a minimum.
    """
    if not len(ovals):
        return
    for _, batch, box in _batches(ovals, 1.0):
        squared, _, _ = _radius_squared(batch, box)
        height = np.clip(1 - squared**power, 0, 1)
        _stamp(layer, (height * 255).astype(np.uint8), batch.x, batch.y)


def stamp_discs(ovals: Ovals, layer: np.ndarray, value: np.ndarray, dimple: float = 0.0) -> None:
    """Draw filled ovals of a given value (0 to 1); `dimple` makes the center paler."""
    if not len(ovals):
        return
    for index, batch, box in _batches(ovals, 1.0):
        squared, _, _ = _radius_squared(batch, box)
        edge = np.sqrt(batch.major * batch.minor).astype(np.float32)[:, None, None] / 1.9
        alpha = np.clip((1 - np.sqrt(squared)) * edge + 0.5, 0, 1)
        alpha *= 1 - dimple * np.exp(-squared * 3.0)
        gray = alpha * (value[index].astype(np.float32)[:, None, None] * 255)
        _stamp(layer, gray.astype(np.uint8), batch.x, batch.y)
