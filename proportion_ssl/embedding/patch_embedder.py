"""scikit-learn transformer from images to the features of a frozen network."""

import copy
import hashlib
import os
import re
import threading
import weakref
from dataclasses import dataclass, field
from functools import cached_property, partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_memory
from torch import nn

from proportion_ssl._sklearn import HasMethods, Interval, StrOptions
from proportion_ssl.embedding._compile import compile_features, export_features
from proportion_ssl.embedding._images import (
    MIN_SIDE,
    ImageEmbedder,
    check_images,
    features_of,
    first_image,
    known_images,
)
from proportion_ssl.embedding._known_features import features_in_steps, run_as_given
from proportion_ssl.embedding._openvino import agree
from proportion_ssl.embedding.exported_embedder import MAX_SIDE, write_exported
from proportion_ssl.embedding.mobilenet import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MobileNetV2Features,
    PixelNormalization,
    load_mobilenet_v2,
)

_FORMAT = "proportion_ssl features 2"  # part of every fingerprint; change it with the arithmetic
_MAX_ENGINES = 2
_SAME = 1e-6  # relative to the largest feature; equal networks differ by less in one process


@dataclass(eq=False)
class _Engine:
    """A compiled network and its features of known images, shared by equal embedders."""

    settings: tuple
    images: torch.Tensor
    expected: np.ndarray
    run: Any
    networks: weakref.WeakSet = field(
        default_factory=weakref.WeakSet
    )  # networks known to equal this one


_engines: list[_Engine] = []  # the oldest is removed first
_engines_lock = threading.Lock()


class PatchEmbedder(ImageEmbedder):
    """Features of images from a frozen network: MobileNetV2, or any torch module.

    The network is not trained: `fit` only loads it and checks the images, and `transform` works without
    `fit`.

    Parameters
    ----------
    weights : "imagenet", None, str or path-like, default="imagenet"
        Weights of MobileNetV2: torchvision's, which are downloaded once; random ones (None, the same in every
        run); or the path of a state dict. See :func:`~proportion_ssl.embedding.load_mobilenet_v2`. Ignored if
        `module` is given.
    module : torch.nn.Module, default=None
        A network to use instead of MobileNetV2, from normalized float images (n, 3, height, width) to
        features (n, d), for instance ``timm.create_model(name, num_classes=0)``. It is copied, when it is
        first used and again in every `fit`, and run in evaluation mode.
    mean, std : sequence of 3 float
        Constants of the normalization: mean and standard deviation of red, green and blue for
        pixels scaled to [0, 1]. ImageNet's by default.
    batch_size : int, default=32
        Number of images computed at once. Features do not depend on it beyond rounding.
    precision : {"auto", "float32"}, default="auto"
        "auto" computes in half precision on a GPU, and in float32 on a CPU; "float32" in float32
        on both.
    memory : str, path-like or joblib.Memory, default=None
        Folder for caching features image by image: an image seen before, in any fold, bag or order, is not
        computed again. Keys are the pixels and :meth:`fingerprint`. For whole slides, feature files are more
        efficient.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Number of features, 1280 for MobileNetV2. Known after `fit`, or the first `transform`.

    Notes
    -----
    A GPU is used if there is one. On a CPU the network runs in OpenVINO where that is installed
    (``pip install proportion_ssl[fast]``), otherwise in torch, with as many threads as
    ``torch.get_num_threads()`` says. While a batch is computed, the next one is read.

    Examples
    --------
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    >>> embedder = PatchEmbedder(weights=None, batch_size=2)
    >>> embedder.fit_transform(images).shape
    (4, 1280)
    >>> features = PatchEmbedder(module=torch.nn.Flatten(), mean=(0, 0, 0), std=(1, 1, 1))
    >>> features.transform(images).max() <= 1
    np.True_
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        "weights": [str, os.PathLike, None],
        "module": [nn.Module, None],
        "mean": ["array-like"],
        "std": ["array-like"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "precision": [StrOptions({"auto", "float32"})],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        weights: str | os.PathLike | None = "imagenet",
        *,
        module: nn.Module | None = None,
        mean: Any = IMAGENET_MEAN,
        std: Any = IMAGENET_STD,
        batch_size: int = 32,
        precision: str = "auto",
        memory: Any = None,
        verbose: bool = False,
    ):
        self.weights = weights
        self.module = module
        self.mean = mean
        self.std = std
        self.batch_size = batch_size
        self.precision = precision
        self.memory = memory
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "PatchEmbedder":
        """Read the network and check the images; nothing is learned.

        Parameters
        ----------
        X : array or sequence of shape (n_images, height, width, 3), uint8
            As in :meth:`transform`. For sequences other than arrays only the first image is read.
        y : ignored

        Returns
        -------
        self : PatchEmbedder
        """
        self._validate_params()
        self._read_network(again=True)
        first = first_image(X, self._min_side)
        self.n_features_out_ = self._compiled(first)(first).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of images.

        Parameters
        ----------
        X : array or sequence of shape (n_images, height, width, 3), uint8
            An array, or anything with a length whose slices ``X[i:j]`` are such arrays: it is read batch by
            batch, in order, each image once, by one background thread. If it has a method
            ``batches(batch_size)``, as patches of slides do, that is used. For MobileNetV2 sides must be at
            least 32 pixels (it was trained on 224).

        Returns
        -------
        features : ndarray of shape (n_images, n_features), float32

        Raises
        ------
        ValueError, TypeError
            If the images have a wrong shape or type, or differ in shape.
        FloatingPointError
            If a feature is not a finite number.
        """
        self._validate_params()
        self._read_network()
        first = first_image(X, self._min_side)
        compute = self._compiled(first)
        if self.memory is not None:
            compute = _Remembered(compute, self.memory, self.fingerprint())

        features = features_of(
            X,
            compute.map,
            first.shape[1:],
            batch_size=self.batch_size,
            min_side=self._min_side,
            verbose=self.verbose,
        )
        self.n_features_out_ = features.shape[1]
        return features

    @property
    def encoder_name(self) -> str | None:
        """Name of the network for feature files, from ``pretrained_embedder``; None for other networks."""
        return getattr(self.module, "encoder_name", None)

    def fingerprint(self) -> str:
        """Hash of all settings that determine the features of an image.

        Covers the network (structure, weights, and the features that it computes of two known images in
        torch), the normalization and the precision; but not batch size and engine, whose results agree to
        1e-4.

        Returns
        -------
        fingerprint : str
            64 hexadecimal digits, equal between processes and machines: the features of the known images
            are computed in float64 and rounded to 0.2%.

        Raises
        ------
        ValueError
            If a module accepts none of the usual image sizes.

        Examples
        --------
        >>> one, other = PatchEmbedder(weights=None), PatchEmbedder(weights=None, batch_size=7)
        >>> one.fingerprint() == other.fingerprint()
        True
        """
        self._validate_params()
        return self._fingerprint(half=self.precision == "auto" and torch.cuda.is_available())

    def export(self, path: str | os.PathLike, *, size: int = 224) -> None:
        """Write the network to a file for :class:`~proportion_ssl.ExportedEmbedder`, which needs no torch.

        Parameters
        ----------
        path : str or path-like
            The file; replaced if it exists.
        size : int, default=224
            Side of the images in pixels; the exported network accepts only this size.

        Raises
        ------
        NotInstalledError
            If OpenVINO is not installed; an ``ImportError``.
        ValueError
            If the network cannot be exported, the exported network gives different features, or `size` is
            above 4096.
        """
        self._validate_params()
        if size > MAX_SIDE:
            raise ValueError(f"size must be at most {MAX_SIDE} pixels, got {size}.")
        image = known_images(size, size)[:1]
        check_images(image, min_side=self._min_side)
        model, expected = export_features(self._with_pixels(self._read_network().module), image)
        fingerprint = self._fingerprint(half=False)
        write_exported(path, model, fingerprint=fingerprint, size=size, expected=expected)

    def _fingerprint(self, *, half):
        settings = (
            _FORMAT,
            self._read_network().content,
            self._constants,
            "float16" if half else "float32",
        )
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def _read_network(self, again=False):
        """The network, read once per setting."""
        weights = self.weights if self.module is None else None
        held = getattr(self, "_network", None)
        if again or held is None or held.given is not self.module or held.weights != weights:
            if self.module is None:
                network: nn.Module = MobileNetV2Features(load_mobilenet_v2(weights))
            else:
                network = copy.deepcopy(self.module)
            held = self._network = _Network(weights, self.module, network.eval())
        return held

    def _compiled(self, example):
        """Function of a batch; compiled once per process for all equal embedders."""
        held = self._read_network()
        shape, n_threads = example.shape[1:], torch.get_num_threads()
        settings = (held.structure, self._constants, shape, self.precision, n_threads, os.getpid())
        with _engines_lock:
            engine = next((e for e in _engines if _is_engine_of(e, settings, held.module)), None)
            if engine is None:
                module = self._with_pixels(held.module)
                run = compile_features(module, example, precision=self.precision)
                images = torch.from_numpy(known_images(*shape[:2]))
                engine = _Engine(settings, images, run_as_given(module, images), run)
                del _engines[: len(_engines) + 1 - _MAX_ENGINES]
            else:
                _engines.remove(engine)
            _engines.append(engine)
            engine.networks.add(held.module)
            return engine.run

    @property
    def _constants(self):
        return tuple(tuple(float(value) for value in given) for given in (self.mean, self.std))

    def _with_pixels(self, network):
        return _with_pixels(network, self.mean, self.std)

    @property
    def _min_side(self):
        return MIN_SIDE if self.module is None else 1


@dataclass(eq=False)
class _Network:
    """A loaded network and its settings; `given` is referenced, so that its id is not reused."""

    weights: Any
    given: nn.Module | None
    module: nn.Module

    @cached_property
    def structure(self) -> str:
        """Hash of its text, parameters and buffers."""
        return _hash_module(self.module)

    @cached_property
    def content(self) -> tuple:
        """Structure and features of known images."""
        return self.structure, features_in_steps(self.module)


def _is_engine_of(engine, settings, network):
    """Whether an engine was compiled from this network, or from one with the same features."""
    if engine.settings != settings:
        return False
    if network in engine.networks:
        return True
    constants = settings[1]
    features = run_as_given(_with_pixels(network, *constants), engine.images)
    return agree(features, engine.expected, _SAME)


class _Remembered:
    """`compute` with a joblib cache of single images."""

    def __init__(self, compute, memory, fingerprint):
        self.compute = compute
        memory = check_memory(os.fspath(memory) if isinstance(memory, os.PathLike) else memory)
        self.recall = memory.cache(_feature_of_image, ignore=["compute"])
        self.fingerprint = fingerprint

    def map(self, batches):
        return (self(batch) for batch in batches)

    def __call__(self, batch):
        keys = [
            (
                hashlib.sha256(np.ascontiguousarray(image).data).hexdigest(),
                image.shape,
                self.fingerprint,
            )
            for image in batch
        ]
        new = [i for i, key in enumerate(keys) if not self.recall.check_call_in_cache(*key, None)]
        computed = dict(zip(new, self.compute(batch[new]), strict=True)) if new else {}

        def row(index):  # a cached row that can no longer be read is computed again
            return computed[index] if index in computed else self.compute(batch[[index]])[0]

        return np.stack([self.recall(*key, partial(row, i)) for i, key in enumerate(keys)])


def _with_pixels(network: nn.Module, mean, std) -> nn.Module:
    return nn.Sequential(PixelNormalization(mean, std), network).eval()


def _feature_of_image(digest, shape, fingerprint, compute):
    """Feature of an image, cached by joblib under the first three arguments."""
    return compute()


def _hash_module(module: nn.Module) -> str:
    """Hash of the structure, the parameters and the buffers of a module."""
    digest = hashlib.sha256()
    digest.update(type(module).__qualname__.encode())
    digest.update(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module)).encode())
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        if name.endswith("num_batches_tracked"):  # a count that no feature depends on
            continue
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
