"""Outlines of rectangles and ellipses."""

from __future__ import annotations

import numpy as np

N_ARC = 128


def rectangle(center, width: float, height: float, rotation: float = 0.0) -> np.ndarray:
    """Corners (4, 2); rotation in radians from the x axis towards the (downward) y axis."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    return _rotated(corners, rotation) + center


def ellipse(center, width: float, height: float, rotation: float = 0.0) -> np.ndarray:
    """Polygon with 128 vertices and exactly the area of the ellipse."""
    step = 2 * np.pi / N_ARC
    angle = np.arange(N_ARC) * step
    scale = np.sqrt(step / np.sin(step))  # an inscribed polygon would be too small
    points = np.stack([np.cos(angle) * width, np.sin(angle) * height], axis=1) * (scale / 2)
    return _rotated(points, rotation) + center


def _rotated(points: np.ndarray, rotation: float) -> np.ndarray:
    cos, sin = np.cos(rotation), np.sin(rotation)
    return points @ np.array([[cos, sin], [-sin, cos]])
