"""Features from an exported network with OpenVINO and numpy only, for machines that only predict."""

import json
import math
import os
import re
import zipfile
from numbers import Integral
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import joblib
import numpy as np

from proportion_ssl._atomic import replacing
from proportion_ssl._sklearn import Interval
from proportion_ssl._version import __version__
from proportion_ssl.embedding._images import (
    ImageEmbedder,
    features_of,
    first_image,
    known_images,
)
from proportion_ssl.embedding._openvino import OpenVINOFeatures, agree, import_openvino

FORMAT = "proportion_ssl exported embedder 2"  # change with the format


MAX_SIDE = 4096
"""Largest side of the images of an exported network."""

MAX_TEXT = 2**26
"""Largest size of description and graph in bytes; a vision transformer with 24 blocks needs one MiB."""

PARTS = ("about.json", "network.xml", "network.bin")
ELEMENTS = {
    *("net", "layers", "layer", "data", "input", "output", "port", "dim", "edges", "edge"),
    *("rt_info", "attribute"),
}


class ExportedFileError(ValueError):
    """The exported file is corrupt or of another kind, or its features do not reproduce on this machine."""


class ExportedEmbedder(ImageEmbedder):
    """Features of images from a network of :meth:`PatchEmbedder.export`; does not import torch.

    A process that reads slides and predicts then needs a fraction of the memory, and starts faster.
    Features, and so :meth:`fingerprint` and feature files, are those of the exported embedder.

    Parameters
    ----------
    path : str or path-like
        The file.
    batch_size : int, default=32
        Number of images read at once.
    n_threads : int, default=None
        Number of threads. Default: ``OMP_NUM_THREADS`` if it is set, otherwise one per core.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Number of features. Known after `fit`, or the first `transform`.

    Notes
    -----
    Needs OpenVINO: ``pip install proportion_ssl[fast]``. Each process reads the file on first use, so the
    file must remain in place. It cannot run code or refer to other files. On opening, the features of a known
    image are checked.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from proportion_ssl import PatchEmbedder
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    >>> embedder = PatchEmbedder(weights=None)
    >>> with TemporaryDirectory() as folder:
    ...     embedder.export(folder + "/network.zip", size=64)
    ...     exported = ExportedEmbedder(folder + "/network.zip")
    ...     features = exported.transform(images)
    ...     same = exported.fingerprint() == embedder.fingerprint()
    >>> features.shape, same
    ((4, 1280), True)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        "path": [str, os.PathLike],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        batch_size: int = 32,
        n_threads: int | None = None,
        verbose: bool = False,
    ):
        self.path = path
        self.batch_size = batch_size
        self.n_threads = n_threads
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "ExportedEmbedder":
        """Read the network and check the images; nothing is learned.

        Parameters
        ----------
        X : array or sequence of shape (n_images, height, width, 3), uint8
            As in :meth:`transform`.
        y : ignored

        Returns
        -------
        self : ExportedEmbedder
        """
        self._validate_params()
        self._first(X)
        self.n_features_out_ = self._opened()[1].n_features
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the features of images.

        Parameters
        ----------
        X : array or sequence of shape (n_images, height, width, 3), uint8
            As in :meth:`PatchEmbedder.transform`, with the image size of the export.

        Returns
        -------
        features : ndarray of shape (n_images, n_features), float32

        Raises
        ------
        ExportedFileError
            If the file is corrupt or of another kind, or its features do not reproduce on this machine.
        NotInstalledError
            If OpenVINO is not installed; an ``ImportError``.
        ValueError, TypeError
            If the images have another shape or type.
        FloatingPointError
            If a feature is not a finite number.
        """
        self._validate_params()
        first = self._first(X)
        _, run = self._opened()
        features = features_of(
            X,
            run.map,
            first.shape[1:],
            batch_size=self.batch_size,
            min_side=1,
            verbose=self.verbose,
        )
        self.n_features_out_ = features.shape[1]
        return features

    def fingerprint(self) -> str:
        """Hash of all settings that determine the features: that of the exported embedder.

        Returns
        -------
        fingerprint : str
            64 hexadecimal digits.
        """
        self._validate_params()
        return self._opened()[0]["fingerprint"]

    def _first(self, X):
        first = first_image(X, min_side=1)
        size = self._opened()[0]["size"]
        if first.shape[1:3] != (size, size):
            raise ValueError(
                f"{os.fspath(self.path)} was exported for images of {size} x {size} pixels; got "
                f"{first.shape[1]} x {first.shape[2]}. Export it with size= for these."
            )
        return first

    def _opened(self):
        """Description and network of the file, read once per setting and process."""
        # the variable may be a list; its first entry is the outermost level
        asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        n_threads = self.n_threads or int(asked or joblib.cpu_count())
        key = (os.fspath(self.path), n_threads, os.getpid())
        held = getattr(self, "_network", None)
        if held is None or held[0] != key:
            held = self._network = (key, read_exported(self.path, n_threads))
        return held[1]


def write_exported(
    path: str | os.PathLike, model: Any, *, fingerprint: str, size: int, expected: np.ndarray
) -> None:
    """Write a network and its description to one file, atomically.

    Parameters
    ----------
    path : str or path-like
    model : openvino.Model
        Maps one image (1, size, size, 3), uint8, to features.
    fingerprint : str
    size : int
    expected : ndarray of shape (1, n_features)
        Features of the first of :func:`known_images` by the original network.

    Raises
    ------
    ValueError
        If :func:`read_exported` would reject the network.
    """
    openvino = import_openvino()
    _check_model(model, size, expected.shape)
    about = {
        "format": FORMAT,
        "package": __version__,
        "fingerprint": fingerprint,
        "size": size,
        "expected": expected.tolist(),
    }
    text = json.dumps(about)
    with replacing(path) as temporary:
        xml = temporary.with_suffix(".xml")
        parts = {"network.xml": xml, "network.bin": xml.with_suffix(".bin")}
        try:
            openvino.serialize(model, *parts.values())
            _check_text(xml.stat().st_size + len(text))
            _check_graph(xml.read_bytes())
            with zipfile.ZipFile(temporary, "w") as archive:
                archive.writestr("about.json", text)
                for name, part in parts.items():
                    archive.write(part, name)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)


def read_exported(path: str | os.PathLike, n_threads: int) -> tuple[dict, OpenVINOFeatures]:
    """Read the description and the network of a file, and test the network.

    Parameters
    ----------
    path : str or path-like
    n_threads : int

    Returns
    -------
    about : dict
    run : OpenVINOFeatures

    Raises
    ------
    ExportedFileError, FileNotFoundError, NotInstalledError
    """
    openvino = import_openvino()
    if not Path(path).exists():
        raise FileNotFoundError(f"exported network not found: {os.fspath(path)!r}.")
    try:
        about, xml, weights = _read_parts(path)
        expected = _check_description(about)
        _check_graph(xml)
        model = openvino.Core().read_model(xml, openvino.Tensor(np.frombuffer(weights, np.uint8)))
        _check_model(model, about["size"], expected.shape)
        run = OpenVINOFeatures(model, n_threads)
        features = run(known_images(about["size"], about["size"])[:1])
    except Exception as error:  # a foreign file can raise any exception
        reason = str(error).strip().split("\n")[0]
        raise ExportedFileError(
            f"{os.fspath(path)!r} is corrupt, or was not written by PatchEmbedder.export of "
            f"this version ({type(error).__name__}: {reason}). Export the network again."
        ) from error
    if not agree(features, expected):
        raise ExportedFileError(
            f"The network in {os.fspath(path)!r} computes other features on this machine than on that of "
            "the export. Use PatchEmbedder here, and report this with the version of OpenVINO."
        )
    return about, run


def _read_parts(path: str | os.PathLike) -> tuple[Any, bytes, bytes]:
    """Description, graph and weights, stored uncompressed, so that no more is read than the file has."""
    with zipfile.ZipFile(path) as archive:
        stored = archive.infolist()
        if sorted(part.filename for part in stored) != sorted(PARTS):
            raise ValueError(f"it should hold {', '.join(PARTS)}")
        if any(part.compress_type != zipfile.ZIP_STORED for part in stored):
            raise ValueError("its parts are compressed")
        sizes = {part.filename: part.file_size for part in stored}
        if sum(sizes.values()) > os.path.getsize(path):
            raise ValueError("its parts claim to be larger than the file")
        _check_text(sizes["about.json"] + sizes["network.xml"])
        about, xml, weights = (archive.read(name) for name in PARTS)  # checks checksums
    return json.loads(about), xml, weights


def _check_text(size: int) -> None:
    if size > MAX_TEXT:
        raise ValueError(f"description and graph have {size:,} bytes, more than {MAX_TEXT:,}")


def _check_description(about: Any) -> np.ndarray:
    """Return the expected features; raise if the description is invalid."""
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    fingerprint, size = about.get("fingerprint"), about.get("size")
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise ValueError("it has no fingerprint")
    if type(size) is not int or not 0 < size <= MAX_SIDE:
        raise ValueError(f"images must have from 1 to {MAX_SIDE} pixels a side, got {size!r}")
    expected = np.array(about.get("expected"), dtype=np.float32)
    if expected.ndim != 2 or len(expected) != 1 or expected.size == 0:
        raise ValueError("it has no expected features")
    return expected


def _check_graph(xml: bytes) -> None:
    """Raise unless a graph is in OpenVINO's format and uses only its published operations.

    OpenVINO also reads other formats, such as ONNX, in which a graph may refer to external weight files.
    """
    if b"<!" in xml:
        raise ValueError("its graph has entities or comments")
    root = ElementTree.fromstring(xml)
    if root.tag != "net":
        raise ValueError(f"its graph is a {root.tag!r}")
    for element in root.iter():
        if element.tag not in ELEMENTS:
            raise ValueError(f"its graph has an element {element.tag!r}")
        if element.tag == "layer" and not re.fullmatch(r"opset\d+", element.get("version", "")):
            raise ValueError(f"its graph has a layer of {element.get('version')!r}")


def _check_model(model: Any, size: int, shape: tuple[int, ...]) -> None:
    """Raise unless a model takes images and gives features of the right shape, and is of usual size."""
    if [list(port.shape) for port in model.inputs] != [[1, size, size, 3]]:
        raise ValueError(f"its network does not take an image of {size} x {size}")
    if [tuple(port.shape) for port in model.outputs] != [shape]:
        raise ValueError(f"its network does not give features of shape {shape}")
    largest = 2**26 + 2**10 * size**2  # values per layer; usual networks have below 100 per pixel
    for layer in model.get_ops():
        if any(math.prod(output.shape) > largest for output in layer.outputs()):
            raise ValueError(
                f"its layer {layer.get_friendly_name()!r} has more than {largest:,} values"
            )
