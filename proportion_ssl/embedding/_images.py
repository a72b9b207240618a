"""Check images, read them batch by batch and compute their features; needs no torch."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from tqdm import tqdm

MIN_SIDE = 32
"""Shortest image side in pixels: MobileNetV2 halves the image five times."""


class ImageEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class of transformers with a frozen network ``_network``: the scikit-learn interface.

    Attributes
    ----------
    n_features_out_ : int
    """

    n_features_out_: int

    @property
    def _n_features_out(self):
        return self.n_features_out_

    def __sklearn_is_fitted__(self):
        return True

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_network", None)  # read again when needed
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def check_images(images: Any, *, min_side: int = MIN_SIDE) -> None:
    """Raise unless `images` is uint8 (n, height, width, 3) with sides of at least `min_side`.

    Parameters
    ----------
    images : ndarray or Tensor
        A batch of images; only its type and shape are checked.
    min_side : int, default=32
        Shortest allowed side in pixels; MobileNetV2 needs 32.

    Raises
    ------
    TypeError
        If the values are not uint8.
    ValueError
        If the shape is wrong or a side is too short.

    Examples
    --------
    >>> check_images(np.zeros((1, 3, 224, 224), dtype=np.uint8))
    Traceback (most recent call last):
    ...
    ValueError: Images must have the shape (n, height, width, 3); got (1, 3, 224, 224). ...
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[3] != 3:
        hint = ""
        if len(shape) == 4 and shape[1] == 3:
            hint = " Channels come last: numpy.moveaxis(images, 1, -1)."
        elif len(shape) == 4 and shape[3] == 4:
            hint = " Drop the alpha channel: images[..., :3]."
        elif len(shape) == 3 and shape[2] == 3:
            hint = " A single image needs a first axis: images[None]."
        raise ValueError(f"Images must have the shape (n, height, width, 3); got {shape}.{hint}")
    if str(images.dtype).removeprefix("torch.") != "uint8":
        raise TypeError(
            f"Images must be uint8 in 0..255, as read from a slide; got {images.dtype}. "
            "Do not scale or normalize them: the constants of the network are applied here."
        )
    if min(shape[1:3]) < min_side:
        raise ValueError(
            f"Images must be at least {min_side} x {min_side} pixels for this network; got "
            f"{shape[1]} x {shape[2]}."
        )


def known_images(height: int, width: int) -> np.ndarray:
    """Two reproducible test images: noise, and a gradient from black to white.

    Parameters
    ----------
    height, width : int

    Returns
    -------
    images : ndarray of shape (2, height, width, 3), uint8
    """
    words = np.random.PCG64(0).random_raw(-(-height * width * 3 // 8)).astype("<u8")
    noise = words.view(np.uint8)[: height * width * 3].reshape(height, width, 3)
    row, column = np.arange(height)[:, np.newaxis], np.arange(width)
    shades = np.stack(
        np.broadcast_arrays(
            row * 255 // max(height - 1, 1),
            column * 255 // max(width - 1, 1),
            (row * (width - 1 - column)) * 255 // max((height - 1) * (width - 1), 1),
        ),
        axis=-1,
    ).astype(np.uint8)
    shades[: height // 4, : width // 4] = 255
    return np.stack([noise, shades])


def first_image(X: Any, min_side: int) -> np.ndarray:
    """Return the first image (1, height, width, 3), checked.

    Parameters
    ----------
    X : array or sequence
        Images, as in :func:`features_of`.
    min_side : int
        Shortest side in pixels.

    Raises
    ------
    TypeError, ValueError
        If `X` does not hold images, or is empty. An array is checked as a whole.
    """
    if not hasattr(X, "__len__") or not hasattr(X, "__getitem__"):
        raise TypeError(
            f"X must be an array of images or a sequence of them, got {type(X).__name__}."
        )
    if len(X) == 0:
        raise ValueError("X holds no image; at least one is needed.")
    if isinstance(X, np.ndarray):
        check_images(X, min_side=min_side)
    first = np.asarray(X[0:1])
    check_images(first, min_side=min_side)
    return first


def features_of(
    X: Any,
    compute: Callable[[Iterator[np.ndarray]], Generator[np.ndarray, None, None]],
    shape: tuple[int, ...],
    *,
    batch_size: int,
    min_side: int,
    verbose: bool,
) -> np.ndarray:
    """Compute the features of all images; the next batch is read while one is computed.

    Parameters
    ----------
    X : array or sequence of shape (n_images, height, width, 3), uint8
        An array, or anything with a length whose slices are such arrays, or with a method
        ``batches(batch_size)``; at least one image.
    compute : callable
        Generator function that maps an iterator of batches to the features of each.
    shape : tuple of int
        Shape of an image.
    batch_size, min_side : int
    verbose : bool
        Whether to show a progress bar.

    Returns
    -------
    features : ndarray of shape (n_images, n_features), float32

    Raises
    ------
    TypeError, ValueError
        If images have a different shape or type.
    FloatingPointError
        If a feature is not a finite number.
    """
    features: np.ndarray | Any = None  # set by the first batch, which exists
    done = 0
    with (
        closing(_batches(X, shape, batch_size, min_side)) as batches,
        closing(compute(batches)) as parts,
        tqdm(total=len(X), unit="patch", disable=not verbose) as progress,
    ):
        for part in parts:
            if not np.isfinite(part).all():
                raise FloatingPointError(
                    f"Features of images {done} to {done + len(part) - 1} are not all "
                    "finite. Check the weights; on a GPU half precision may be insufficient: set "
                    "precision='float32'."
                )
            if features is None:
                features = np.empty((len(X), part.shape[1]), dtype=np.float32)
            features[done : done + len(part)] = part
            done += len(part)
            progress.update(len(part))
    return features


def _batches(X, shape, batch_size, min_side) -> Generator[np.ndarray, None, None]:
    """Iterate over checked batches; the next is read while one is used."""
    batches, done = _read(X, batch_size), 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-images") as reader:
        pending = reader.submit(next, batches, None)
        while (read := pending.result()) is not None:
            pending = reader.submit(next, batches, None)
            batch, expected = read
            check_images(batch, min_side=min_side)
            if batch.shape != (expected, *shape) or done + expected > len(X):
                raise ValueError(
                    f"X[{done}:{done + expected}] has the shape {batch.shape} but "
                    f"{(expected, *shape)} was expected: all images must have the shape of "
                    "the first one."
                )
            yield batch
            done += expected
    if done < len(X):
        raise ValueError(f"X.batches gave {done} images, but X has {len(X)}.")


def _read(X, batch_size) -> Iterator[tuple[np.ndarray, int]]:
    """Iterate over batches and the number of images expected in each."""
    if hasattr(X, "batches"):  # so that slides decode each stored tile once
        for images in X.batches(batch_size):
            yield np.asarray(images), len(images)
        return
    for start in range(0, len(X), batch_size):
        stop = min(start + batch_size, len(X))
        yield np.asarray(X[start:stop]), stop - start
