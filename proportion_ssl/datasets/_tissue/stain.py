"""Colors from the concentrations of hematoxylin and eosin."""

from dataclasses import dataclass

import numpy as np

# optical density (natural logarithm) of unit concentration, red green blue: the reference
# vectors of Macenko et al., "A method for normalizing histology slides ...", ISBI 2009
HEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062])
EOSIN = np.array([0.2159, 0.8012, 0.5581])


@dataclass(frozen=True)
class Stain:
    """The stain and scanner of one slide.

    Attributes
    ----------
    vectors : ndarray of shape (2, 3)
        Optical density of unit concentration of hematoxylin and of eosin.
    strength : ndarray of shape (2,)
        Factors on the two concentrations.
    light : ndarray of shape (3,)
        Intensity of the glass, 0 to 255.
    """

    vectors: np.ndarray
    strength: np.ndarray
    light: np.ndarray


def draw_stain(rng: np.random.Generator, variation: float) -> Stain:
    """Draw the stain of a slide; `variation` 0 gives every slide the reference stain."""
    vectors = np.stack([HEMATOXYLIN, EOSIN])
    vectors = vectors * np.exp(
        variation * rng.normal(0.0, [[0.11, 0.05, 0.13], [0.17, 0.05, 0.12]])
    )
    vectors *= np.linalg.norm([HEMATOXYLIN, EOSIN], axis=1, keepdims=True) / np.linalg.norm(
        vectors, axis=1, keepdims=True
    )
    strength = np.exp(variation * (rng.normal(0.0, 0.12) + rng.normal(0.0, [0.20, 0.25])))
    glass = 243.0 * np.exp(variation * rng.normal(0.0, 0.015))
    light = glass * np.exp(variation * rng.normal(0.0, 0.008, 3))
    return Stain(vectors, strength, np.minimum(light, 252.0))


def absorb(
    hematoxylin: np.ndarray, eosin: np.ndarray, stain: Stain, grain: np.ndarray
) -> np.ndarray:
    """Color of light transmitted through the two stains (Beer-Lambert), as uint8 red, green, blue.

    Parameters
    ----------
    hematoxylin, eosin : ndarray of shape (height, width)
        Non-negative concentrations.
    stain : Stain
    grain : ndarray of shape (height, width)
        Noise of the camera, in gray levels, added to every color.
    """
    picture = np.empty((*hematoxylin.shape, 3), dtype=np.uint8)
    scaled = stain.vectors * stain.strength[:, None]
    for channel in range(3):
        density = hematoxylin * np.float32(scaled[0, channel])
        density += eosin * np.float32(scaled[1, channel])
        light = np.exp(-density)
        light *= np.float32(stain.light[channel])
        light += grain
        picture[..., channel] = np.clip(light, 0, 255)
    return picture
