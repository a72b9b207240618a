"""Features by an exported network: OpenVINO and numpy alone, for machines that only predict."""

import json
import os
import zipfile
from numbers import Integral
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from proportion_ssl._atomic import replacing
from proportion_ssl._sklearn import Interval
from proportion_ssl._version import __version__
from proportion_ssl.embedding._images import ImageEmbedder, features_of, first_image
from proportion_ssl.embedding._openvino import OpenVINOFeatures, agree, import_openvino

FORMAT = (
    "proportion_ssl exported embedder 1"  # change it when a file of today would be read wrongly
)


class ExportedFileError(ValueError):
    """A file is no whole file of :meth:`PatchEmbedder.export`, or computes something else here."""


class ExportedEmbedder(ImageEmbedder):
    """Features of images by a network that :meth:`PatchEmbedder.export` wrote; loads no torch.

    A process that reads slides and predicts then needs a fraction of the memory, and starts faster.
    Features, and so :meth:`fingerprint` and feature files, are those of the exported embedder.

    Parameters
    ----------
    path : str or path-like
        The file.
    batch_size : int, default=32
        Number of images read at once.
    n_threads : int, default=None
        Threads that compute. Default: ``OMP_NUM_THREADS`` if it is set, or else one per core.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Number of features. Known after `fit`, or the first `transform`.

    Notes
    -----
    Needs OpenVINO: ``pip install proportion_ssl[fast]``. The file is read when it is first used, by each
    process for itself, and must stay where it is; nothing in it can run code. An image of it whose features
    are known is computed first.

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
        """Read the network and check the images; nothing is learnt.

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
            As in :meth:`PatchEmbedder.transform`; of the size that the network was exported for.

        Returns
        -------
        features : ndarray of shape (n_images, n_features), float32

        Raises
        ------
        ExportedFileError
            If the file is damaged or another, or its network computes something else on this machine.
        NotInstalledError
            Without OpenVINO; an ``ImportError``.
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
        """Hash of all that makes the features of an image: that of the exported embedder.

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
        """What the file says of its network, and the network; read once per setting and process."""
        # the variable may be a list, whose first entry counts for threads that start no others
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
    """Write a network and what is known of it into one file, whole or not at all.

    Parameters
    ----------
    path : str or path-like
    model : openvino.Model
        From one image (1, size, size, 3), uint8, to features.
    fingerprint : str
    size : int
    expected : ndarray of shape (1, n_features)
        Features of :func:`known_image` by the network as given.
    """
    openvino = import_openvino()
    about = {
        "format": FORMAT,
        "package": __version__,
        "fingerprint": fingerprint,
        "size": size,
        "expected": expected.tolist(),
    }
    with replacing(path) as temporary:
        xml = temporary.with_suffix(".xml")
        parts = {"network.xml": xml, "network.bin": xml.with_suffix(".bin")}
        try:
            openvino.serialize(model, *parts.values())
            with zipfile.ZipFile(temporary, "w") as archive:
                archive.writestr("about.json", json.dumps(about))
                for name, part in parts.items():
                    archive.write(part, name)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)


def read_exported(path: str | os.PathLike, n_threads: int) -> tuple[dict, OpenVINOFeatures]:
    """What a file says of its network, and the network, which was tried.

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
    ExportedFileError, FileNotFoundError
    """
    openvino = import_openvino()
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no exported network at {os.fspath(path)!r}.")
    try:
        with zipfile.ZipFile(path) as archive:  # compares checksums
            about = json.loads(archive.read("about.json"))
            xml, weights = archive.read("network.xml"), archive.read("network.bin")
        if about["format"] != FORMAT:
            raise KeyError("format")
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        raise ExportedFileError(
            f"{os.fspath(path)!r} is damaged, or no file of PatchEmbedder.export of this version "
            f"({type(error).__name__}: {error}). Export the network again."
        ) from error
    weights = openvino.Tensor(np.frombuffer(weights, dtype=np.uint8))
    run = OpenVINOFeatures(openvino.Core().read_model(xml, weights), n_threads)
    if not agree(run(known_image(about["size"])), np.array(about["expected"], dtype=np.float32)):
        raise ExportedFileError(
            f"The network in {os.fspath(path)!r} computes other features on this machine than where it was "
            "exported. Use PatchEmbedder here, and report this with the version of OpenVINO."
        )
    return about, run


def known_image(size: int) -> np.ndarray:
    """The image (1, size, size, 3) whose features stand in a file."""
    return np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
