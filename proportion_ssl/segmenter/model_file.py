"""Save a segmenter to one file without code: a zip archive of JSON, safetensors and an exported network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as tensor_bytes

from proportion_ssl._atomic import replacing
from proportion_ssl._version import __version__
from proportion_ssl.persistence import ModelFileError
from proportion_ssl.persistence._kinds import SEGMENTER_PART, is_classifier_file
from proportion_ssl.pseudo_labels.recorded import INSTANCE_WEIGHT, UNKNOWN_DEVIATION
from proportion_ssl.segmenter import stain_reference
from proportion_ssl.segmenter.linear_predictor import LinearPredictor
from proportion_ssl.segmenter.prediction import Models

FORMAT = "proportion_ssl segmenter"
VERSION = 1  # increase when files of the current version could no longer be read correctly

ABOUT, LINEAR, NETWORK = SEGMENTER_PART, "linear.safetensors", "network.zip"
MODELS = {"classifier": "classifier.safetensors", "proposer": "proposer.safetensors"}
MAX_BYTES = {
    ABOUT: 2**24,
    LINEAR: 2**30,
    NETWORK: 2**31,
    **dict.fromkeys(MODELS.values(), 2**31),
}


#: Parameters that are saved. Of classifier, embedder, proposer and normalizer the fitted objects are saved.
PARAMETERS = ("patch_size", "stride", "min_tissue")
STATE = ("classes_", "features_", "reference_slide_", "empty_cases_", "n_slides_", "n_patches_")


def write(segmenter: Any, path: str | PathLike, *, network: bool) -> None:
    """Write a fitted segmenter; see :meth:`SlideSegmenter.save`.

    Parameters
    ----------
    segmenter : SlideSegmenter
    path : path-like
    network : bool
    """
    with tempfile.TemporaryDirectory(prefix="proportion_ssl_") as folder, replacing(path) as target:
        members = _members(segmenter, Path(folder), network)
        about = _describe(segmenter, members)
        with zipfile.ZipFile(target, "w") as archive:  # uncompressed: weights do not compress
            _add(archive, ABOUT, json.dumps(about, allow_nan=False, sort_keys=True).encode())
            for name, data in sorted(members.items()):
                _add(archive, name, data)


def read(cls: type, path: str | PathLike, *, embedder: Any) -> Any:
    """Read a segmenter; see :meth:`SlideSegmenter.load`.

    Parameters
    ----------
    cls : type
        SlideSegmenter.
    path : path-like
    embedder : transformer or None

    Returns
    -------
    segmenter : SlideSegmenter
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"model file not found: {str(path)!r}.")
    if path.is_dir():
        raise ModelFileError(f"{str(path)!r} is a folder; give the file model.segmenter in it.")
    if is_classifier_file(path):
        raise ModelFileError(
            f"{str(path)!r} is a classifier file of proportion_ssl.save; read it with proportion_ssl.load."
        )
    try:
        about, members = _read_members(path)
        segmenter = _restore(cls, about, members)
    except ModelFileError as error:
        raise ModelFileError(f"{str(path)!r} cannot be loaded: {error}") from error
    except Exception as error:  # a damaged file can raise any exception
        first = (str(error).splitlines() or [""])[0][:200]
        raise ModelFileError(
            f"{str(path)!r} cannot be loaded: it is damaged, or was not written by SlideSegmenter.save "
            f"({type(error).__name__}: {first})."
        ) from error
    if embedder is not None:
        _set_embedder(segmenter, embedder)
    elif NETWORK in members:
        _unpack_network(segmenter, members[NETWORK])
    return segmenter


# --- what is written ----------------------------------------------------------------------------


def _members(segmenter, folder: Path, network: bool) -> dict[str, bytes]:
    """Content of the file by name, without the description."""
    from proportion_ssl.persistence import save

    members: dict[str, bytes] = {}
    for name, member in MODELS.items():
        model = segmenter._models[name]
        if isinstance(model, bytes):  # from a loaded file, unchanged since
            members[member] = model
        elif model is not None:
            save(model, folder / member)
            members[member] = (folder / member).read_bytes()
    tensors = {}
    for name, predictor in _predictors(segmenter.models_).items():
        if isinstance(predictor, LinearPredictor):
            tensors[f"{name}.coef"] = np.ascontiguousarray(predictor.coef, dtype=np.float64)
            tensors[f"{name}.intercept"] = np.ascontiguousarray(
                predictor.intercept, dtype=np.float64
            )
            tensors[f"{name}.weights"] = np.ascontiguousarray(predictor.weights, dtype=np.float64)
    members[LINEAR] = tensor_bytes(tensors)
    embedder: Any = getattr(segmenter, "embedder_", None)
    if network and embedder is not None:
        exported = getattr(embedder, "path", None) if hasattr(segmenter, "_network_file") else None
        if exported is not None:  # from a loaded file
            members[NETWORK] = Path(exported).read_bytes()
            return members
        if not hasattr(embedder, "export"):
            raise TypeError(
                f"The network of {type(embedder).__name__} cannot be exported. Save with "
                "network=False, and pass the embedder to load."
            )
        embedder.export(folder / NETWORK, size=segmenter.patch_size)
        members[NETWORK] = (folder / NETWORK).read_bytes()
    return members


def _predictors(models: Models) -> dict[str, Any]:
    return {"classifier": models.classifier, "proposer": models.proposer}


def _describe(segmenter, members: Mapping[str, bytes]) -> dict[str, Any]:
    normalizer = segmenter.normalizer_
    predictors = _predictors(segmenter.models_)
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "parameters": {name: getattr(segmenter, name) for name in PARAMETERS},
        "state": {name: getattr(segmenter, name) for name in STATE},
        "magnifications": [float(m) for m in segmenter.magnifications],
        "colors": {name: list(color) for name, color in segmenter.colors_.items()},
        "made_by": {
            **segmenter.made_by_,
            "magnifications": list(segmenter.made_by_["magnifications"]),
        },
        "normalizer": None if normalizer is None else stain_reference.describe(normalizer),
        "has_proposer": segmenter.models_.proposer is not None,
        "threshold": float(segmenter.models_.threshold),
        "temperature": float(segmenter.temperature_),
        "smoothing": float(segmenter.smoothing_),
        "record_deviation": float(segmenter.models_.record_deviation),
        "instance_weight": float(segmenter.models_.instance_weight),
        "proportion_errors": _numbers(segmenter.proportion_errors_),
        "linear": [n for n, p in predictors.items() if isinstance(p, LinearPredictor)],
        "classifier_classes": segmenter.models_.learned,
        "has_network": NETWORK in members,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }


def _numbers(errors: np.ndarray | None) -> list | None:
    """List for JSON, with None for infinity (too few left-out bags)."""
    return None if errors is None else [e if np.isfinite(e) else None for e in errors.tolist()]


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name), data)  # no date, so that equal models give equal files


# --- what is read -------------------------------------------------------------------------------


def _read_members(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read description and content; check sizes, names and hashes."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename not in MAX_BYTES:
                raise ModelFileError(f"it holds the unknown part {info.filename[:80]!r}.")
            if (
                info.file_size > MAX_BYTES[info.filename]
                or info.compress_type != zipfile.ZIP_STORED
            ):
                raise ModelFileError(f"its part {info.filename!r} is too large or compressed.")
        if sorted(archive.namelist()) != sorted(set(archive.namelist())):
            raise ModelFileError("it holds one part twice.")
        about = json.loads(archive.read(ABOUT))
        if about.get("format") != FORMAT:
            raise ModelFileError("it was not written by SlideSegmenter.save.")
        if about.get("version") != VERSION:
            raise ModelFileError(
                f"it has version {about.get('version')!r}; this package ({__version__}) reads {VERSION}: "
                f"use the package version that wrote it ({about.get('package')!r}), or fit again."
            )
        members = {name: archive.read(name) for name in archive.namelist() if name != ABOUT}
    if set(about["sha256"]) != set(members):
        raise ModelFileError("its parts do not match its description.")
    for name, data in members.items():
        if hashlib.sha256(data).hexdigest() != about["sha256"][name]:
            raise ModelFileError(f"its part {name!r} is damaged.")
    return about, members


def _restore(cls: type, about: Mapping[str, Any], members: Mapping[str, bytes]) -> Any:
    normalizer = about["normalizer"]
    fitted = None if normalizer is None else stain_reference.build(normalizer)
    segmenter = cls(
        magnifications=tuple(about["magnifications"]),
        normalizer=None if fitted is None else type(fitted)(**fitted.get_params()),
        **{name: about["parameters"][name] for name in PARAMETERS},
    )
    for name in STATE:
        setattr(segmenter, name, about["state"][name])
    segmenter.normalizer_ = fitted
    made_by = dict(about["made_by"])
    segmenter.made_by_ = {**made_by, "magnifications": tuple(made_by["magnifications"])}
    segmenter.colors_ = {name: tuple(color) for name, color in about["colors"].items()}
    segmenter.failures_ = {}
    tensors = read_tensors(members[LINEAR])
    classes = {
        "classifier": np.array(about["classifier_classes"]),
        "proposer": np.array(["False", "True"]),
    }
    predictors: dict[str, Any] = {"classifier": None, "proposer": None}
    for name in about["linear"]:
        parts = {part: tensors[f"{name}.{part}"] for part in ("coef", "intercept", "weights")}
        predictors[name] = LinearPredictor(**parts, classes=classes[name])
    segmenter._is_loaded = True
    segmenter._models = {name: members.get(member) for name, member in MODELS.items()}
    if predictors["classifier"] is None:
        predictors["classifier"] = segmenter.classifier_
    if about["has_proposer"] and predictors["proposer"] is None:
        predictors["proposer"] = segmenter.proposer_.net_
    segmenter.temperature_ = float(about.get("temperature", 1.0))
    segmenter.smoothing_ = float(about.get("smoothing", 0.0))
    errors = about.get("proportion_errors")  # absent in files of earlier versions
    segmenter.proportion_errors_ = (
        None if errors is None else np.array([np.inf if e is None else e for e in errors])
    )
    segmenter.models_ = Models(
        **predictors,
        threshold=float(about["threshold"]),
        temperature=segmenter.temperature_,
        smoothing=segmenter.smoothing_,
        record_deviation=float(about.get("record_deviation", UNKNOWN_DEVIATION)),
        instance_weight=float(about.get("instance_weight", INSTANCE_WEIGHT)),
    )
    return segmenter


def restore_model(data: bytes) -> Any:
    """Restore a classifier or proposer from the file; imports torch.

    Parameters
    ----------
    data : bytes
        Content of a file of :func:`proportion_ssl.save`.

    Returns
    -------
    model : classifier or TumorProposer
    """
    from proportion_ssl.persistence import load

    with tempfile.TemporaryDirectory(prefix="proportion_ssl_") as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        return load(path)


def _set_embedder(segmenter, embedder) -> None:
    fingerprint, wanted = embedder.fingerprint(), segmenter.made_by_["embedder"]
    if fingerprint != wanted:
        raise ValueError(
            f"embedder differs from that of the fit: its fingerprint begins with {fingerprint[:12]}, that of "
            f"the fit with {str(wanted)[:12]}."
        )
    segmenter.embedder = segmenter.embedder_ = embedder


def _unpack_network(segmenter, data: bytes) -> None:
    """Write the network to a temporary file that is removed with the segmenter."""
    from proportion_ssl.embedding import ExportedEmbedder

    folder = tempfile.mkdtemp(prefix="proportion_ssl_")
    segmenter._network_file = weakref.finalize(segmenter, _remove, folder, os.getpid())
    path = Path(folder) / NETWORK
    path.write_bytes(data)
    segmenter.embedder_ = ExportedEmbedder(str(path))


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
