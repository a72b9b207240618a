"""From images to the features of a frozen network, as a scikit-learn transformer."""

import copy
import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_memory
from torch import nn
from tqdm import tqdm

from proportion_ssl.nets.inference import compile_features
from proportion_ssl.nets.mobilenet import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MIN_SIDE,
    MobileNetV2Features,
    PixelNormalization,
    check_images,
    load_mobilenet_v2,
)

_FORMAT = "proportion_ssl features 1"  # a part of every fingerprint: change it with the arithmetic
_MAX_ENGINES = 2

_engines: OrderedDict = OrderedDict()  # compiled networks, shared by clones; the oldest goes first
_engines_lock = threading.Lock()


class PatchEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features of images by a frozen network: MobileNetV2, or any torch module.

    The network is a constant. `fit` only reads it and checks the images, and `transform` works
    without a `fit`.

    Parameters
    ----------
    weights : "imagenet", None, str or path-like, default="imagenet"
        Weights of MobileNetV2: torchvision's, which are downloaded once; random ones (None, the
        same in every run); or the path of a state dict. See
        :func:`~proportion_ssl.nets.load_mobilenet_v2`. Not looked at if `module` is given.
    module : torch.nn.Module, default=None
        A network to use in place of MobileNetV2: normalised float images
        (n, 3, height, width) to features (n, d), for instance ``timm.create_model(name,
        num_classes=0)``. It is copied, when it is first used and again in every `fit`, and run in
        evaluation mode.
    mean, std : sequence of 3 float
        Constants of the normalisation: mean and standard deviation of red, green and blue for
        pixels scaled to [0, 1]. ImageNet's by default.
    batch_size : int, default=32
        Number of images computed at once. Features do not depend on it beyond rounding.
    precision : {"auto", "float32"}, default="auto"
        "auto" computes in half precision on a GPU, and in float32 on a CPU; "float32" in float32
        on both.
    memory : str, path-like or joblib.Memory, default=None
        Folder in which features are remembered, image by image: an image that was seen before,
        in any fold, bag or order, is not computed again. Keys are the pixels and
        :meth:`fingerprint`. For whole slides a feature file per slide is the better store.
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
        """Read the network and check the images; nothing is learnt.

        Parameters
        ----------
        X : array or sequence of shape (n_images, height, width, 3), uint8
            As in :meth:`transform`. Of a sequence that is not an array only the first image is
            read.
        y : ignored

        Returns
        -------
        self : PatchEmbedder
        """
        self._validate_params()
        self._read_network(again=True)
        first = self._first(X)
        self.n_features_out_ = self._compiled(first)(first).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of images.

        Parameters
        ----------
        X : array or sequence of shape (n_images, height, width, 3), uint8
            An array, or anything with a length whose slices ``X[i:j]`` are such arrays: it is
            read batch by batch, in order, each image once, by one background thread. If it has a
            method ``batches(batch_size)``, as patches of slides have, it is read by that. For
            MobileNetV2 sides must be at least 32 pixels (it was trained on 224).

        Returns
        -------
        features : ndarray of shape (n_images, n_features), float32

        Raises
        ------
        ValueError, TypeError
            If the images have another shape or type, or differ in shape among themselves.
        FloatingPointError
            If a feature is not a finite number.
        """
        self._validate_params()
        self._read_network()
        first = self._first(X)
        compute = self._compiled(first)
        if self.memory is not None:
            compute = _Remembered(compute, self.memory, self.fingerprint())

        features: np.ndarray | Any = None  # one batch at least: there is a first image
        done = 0
        with (
            closing(self._batches(X, first.shape[1:])) as batches,
            closing(compute.map(batches)) as parts,
            tqdm(total=len(X), unit="patch", disable=not self.verbose) as progress,
        ):
            for part in parts:
                if not np.isfinite(part).all():
                    raise FloatingPointError(
                        f"Features of images {done} to {done + len(part) - 1} are not all "
                        "finite. Check the weights; if the network needs more than half "
                        "precision, set precision='float32'."
                    )
                if features is None:
                    features = np.empty((len(X), part.shape[1]), dtype=np.float32)
                features[done : done + len(part)] = part
                done += len(part)
                progress.update(len(part))
        self.n_features_out_ = features.shape[1]
        return features

    def fingerprint(self) -> str:
        """Hash of all that makes the features of an image, apart from its pixels.

        Covers the network (structure and weights, wherever they came from), the normalisation and
        the precision; neither batch size nor engine, whose results are equal to 1e-4.

        Returns
        -------
        fingerprint : str
            64 hexadecimal digits, equal between processes and machines.

        Examples
        --------
        >>> one, other = PatchEmbedder(weights=None), PatchEmbedder(weights=None, batch_size=7)
        >>> one.fingerprint() == other.fingerprint()
        True
        """
        self._validate_params()
        _, _, network_hash = self._read_network()
        half = self.precision == "auto" and torch.cuda.is_available()
        settings = (
            _FORMAT,
            network_hash,
            tuple(float(value) for value in self.mean),
            tuple(float(value) for value in self.std),
            "float16" if half else "float32",
        )
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def _read_network(self, again=False):
        """Network and its hash, read once per setting: (key, module, hash)."""
        key = (self.weights if self.module is None else None, id(self.module))
        held = getattr(self, "_network", None)
        if again or held is None or held[0] != key:
            if self.module is None:
                network: nn.Module = MobileNetV2Features(load_mobilenet_v2(self.weights))
            else:
                network = copy.deepcopy(self.module)
            held = self._network = (key, network.eval(), _hash_module(network))
        return held

    def _compiled(self, example):
        """Function of a batch; compiled once per process for all equal embedders."""
        _, network, _ = self._read_network()
        n_threads = torch.get_num_threads()
        key = (self.fingerprint(), example.shape[1:], self.precision, n_threads, os.getpid())
        with _engines_lock:
            if key not in _engines:
                module = nn.Sequential(PixelNormalization(self.mean, self.std), network)
                _engines[key] = compile_features(module, example, precision=self.precision)
                while len(_engines) > _MAX_ENGINES:
                    _engines.popitem(last=False)
            _engines.move_to_end(key)
            return _engines[key]

    def _first(self, X) -> np.ndarray:
        """First image (1, height, width, 3), checked; raise if X is no set of images."""
        if not hasattr(X, "__len__") or not hasattr(X, "__getitem__"):
            raise TypeError(
                f"X must be an array of images or a sequence of them, got {type(X).__name__}."
            )
        if len(X) == 0:
            raise ValueError("X holds no image; at least one is needed.")
        if isinstance(X, np.ndarray):
            self._check(X)
        return self._check(np.asarray(X[0:1]))

    def _check(self, images):
        check_images(images, min_side=MIN_SIDE if self.module is None else 1)
        return images

    def _batches(self, X, shape) -> Generator[np.ndarray, None, None]:
        """Checked batches; while one is used, the next is read."""
        batches, done = self._read(X), 0
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-images") as reader:
            pending = reader.submit(next, batches, None)
            while (read := pending.result()) is not None:
                pending = reader.submit(next, batches, None)
                batch, expected = self._check(read[0]), read[1]
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

    def _read(self, X) -> Iterator[tuple[np.ndarray, int]]:
        """Batches in order, each with the number of images that it should hold."""
        if hasattr(X, "batches"):  # slides then decode each stored tile once
            for images in X.batches(self.batch_size):
                yield np.asarray(images), len(images)
            return
        for start in range(0, len(X), self.batch_size):
            stop = min(start + self.batch_size, len(X))
            yield np.asarray(X[start:stop]), stop - start

    @property
    def _n_features_out(self):
        return self.n_features_out_

    def __sklearn_is_fitted__(self):
        return True

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_network", None)  # read again where it is needed
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class _Remembered:
    """`compute` with a joblib memory in front that knows images one by one."""

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

        def row(index):  # one that was there and cannot be read any more is computed alone
            return computed[index] if index in computed else self.compute(batch[[index]])[0]

        return np.stack([self.recall(*key, partial(row, i)) for i, key in enumerate(keys)])


def _feature_of_image(digest, shape, fingerprint, compute):
    """What joblib remembers under the first three arguments."""
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
