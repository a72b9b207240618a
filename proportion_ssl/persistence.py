"""Save a fitted classifier to one file, and load it without running anything that the file says.

The file is in the safetensors format: weights and other arrays as tensors, everything else as JSON
in its header. Classes are named in it and looked up in the tables below; nothing is imported by a
name that a file gives, and nothing is unpickled.
"""

import hashlib
import json
import math
import os
import re
import secrets
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._version import __version__
from proportion_ssl.classifier import NegativePseudoLabelClassifier
from proportion_ssl.embedding import PatchEmbedder
from proportion_ssl.losses import MultiNegativeLoss, NegativeLoss, PositiveLoss
from proportion_ssl.nets.data import SignedDataset
from proportion_ssl.nets.mobilenet import N_FEATURES, check_images
from proportion_ssl.nets.net import (
    SIGNED_LABEL_SETTINGS,
    HeadClassifier,
    MobileNetV2Classifier,
    SignedLabelNet,
)
from proportion_ssl.selection import AdaptiveSelector, NegativeSelector, ThresholdSelector

__all__ = ["ModelFileError", "load", "save"]

FORMAT = "proportion_ssl classifier"
VERSION = 1
_KEY = "proportion_ssl"
_MAX_DOCUMENT = 2**26  # characters of JSON

_SELECTORS = {c.__name__: c for c in (AdaptiveSelector, NegativeSelector, ThresholdSelector)}
_LOSSES = {c.__name__: c for c in (MultiNegativeLoss, NegativeLoss, PositiveLoss)}
_NETS = {c.__name__: c for c in (HeadClassifier, MobileNetV2Classifier)}
_OPTIMIZERS = {
    c.__name__: c for c in (torch.optim.RAdam, torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
}
#: Parameters of the classifier that hold an object, and what it may be an instance of.
_PARTS = {
    "positive_selector": _SELECTORS,
    "negative_selector": _SELECTORS,
    "positive_loss": _LOSSES,
    "negative_loss": _LOSSES,
}
#: Parameters of a net that are kept; any other must have its default.
_NET_PARAMETERS = (
    *("lr", "weight_decay", "batch_size", "max_epochs", "patience", "validation_fraction"),
    *("dropout", "random_state", "verbose", "weights", "freeze"),
)
_NET_OWN = ("optimizer", "criterion__positive", "criterion__negative", "device", "classes")
_PLAIN = ("n_iter_", "termination_condition_", "refit_history_", "history_", "is_images_")
_PLAIN += ("n_features_in_",)
_NAMES = ("classes_", "bag_names_", "feature_names_in_")
_ARRAYS = {
    "signed_labels_": (torch.int8,),
    "label_rounds_": (torch.int32, torch.int64),
    "bag_index_": (torch.int64,),
}
_NAME_KINDS = {"b": bool, "i": int, "u": int, "f": float, "U": str, "O": str}


class ModelFileError(ValueError):
    """A model file that is damaged, of another version, or not a model of this package."""


def save(model: NegativePseudoLabelClassifier, path: str | os.PathLike[str]) -> None:
    """Write a fitted classifier to one file that :func:`load` reads.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    model : NegativePseudoLabelClassifier
        Fitted, with the default nets (:class:`~proportion_ssl.HeadClassifier`,
        :class:`~proportion_ssl.MobileNetV2Classifier`), and selectors and losses of this package.
    path : str or path-like
        Where to write, such as ``"lung.safetensors"``; replaced if it exists. A head on 1280 features
        takes some 40 kB plus its pseudo labels, a MobileNetV2 some 9 MB more.

    Raises
    ------
    TypeError
        If `model` is no such classifier, or has a part that cannot be saved, which is named.
    ValueError
        If a setting or a class name is of a type that cannot be saved, which is named.
    NotFittedError
        If the model was not fitted.

    Notes
    -----
    Kept are the parameters, the fitted attributes and the weights. The optimiser's state and the
    net's own record of epochs are not: a loaded model predicts, and can be fitted anew.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from proportion_ssl import NegativePseudoLabelClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=4, random_state=0)
    >>> model = NegativePseudoLabelClassifier(max_epochs=2, random_state=0)
    >>> model = model.fit(data.X_labeled, data.y, data.bags)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save(model, path)
    >>> bool((load(path).predict_proba(data.X_test) == model.predict_proba(data.X_test)).all())
    True
    """
    if type(model) is not NegativePseudoLabelClassifier:
        raise TypeError(
            f"Only a NegativePseudoLabelClassifier can be saved; got {type(model).__name__}. Save the "
            "classifier of a pipeline by itself, and keep its other steps by other means."
        )
    check_is_fitted(model)
    net = model.estimator_
    document = {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "parameters": _describe_parameters(model),
        "net": _describe_net(net, "estimator_"),
        "fitted": {},
    }
    tensors = {
        f"net.{name}": value.detach().cpu().contiguous()
        for name, value in net.module_.state_dict().items()
    }
    for name in sorted(vars(model)):
        if not name.endswith("_") or name.startswith("_") or name == "estimator_":
            continue
        value = getattr(model, name)
        if name in _ARRAYS:
            tensors[name] = torch.as_tensor(np.ascontiguousarray(value))
        elif name in _NAMES:
            document["fitted"][name] = _describe_names(value, name)
        elif name in _PLAIN:
            document["fitted"][name] = _plain(value, name)
        else:
            raise ValueError(f"The fitted attribute {name!r} is not one that can be saved.")
    text = json.dumps(document, allow_nan=False, ensure_ascii=True)
    header = json.dumps({"model": text, "sha256": _digest(text, tensors)})
    data = tensor_bytes(tensors, {_KEY: header})  # one key: safetensors writes several in any order
    _write(Path(path), data)


def load(path: str | os.PathLike[str]) -> NegativePseudoLabelClassifier:
    """Read a classifier that :func:`save` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    model : NegativePseudoLabelClassifier
        Fitted, on the CPU; it predicts the same as the one that was saved, bit for bit on the same
        machine.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is truncated, damaged, of an unknown version, or says something that no saved model
        says; a ``ValueError`` that names the file and what is wrong.

    Notes
    -----
    Whatever the file holds, reading it runs no code from it, opens no other file and uses no
    network. Its hash finds accidents; it is no signature, so that a file from strangers loads safely
    but may predict anything.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> _ = path.write_bytes(b"not a model")
    >>> load(path)
    Traceback (most recent call last):
    ...
    proportion_ssl.persistence.ModelFileError: ...
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no model file {str(path)!r}.")
    try:
        return _restore(*_read(path.read_bytes()))
    except ModelFileError as error:
        raise ModelFileError(f"{str(path)!r} cannot be loaded: {error}") from error
    except (
        *(SafetensorError, ValueError, TypeError, KeyError, AttributeError, IndexError),
        *(RuntimeError, OverflowError, RecursionError, MemoryError, UnicodeError),
    ) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise ModelFileError(
            f"{str(path)!r} cannot be loaded: it is damaged, or no file of proportion_ssl.save "
            f"({type(error).__name__}: {first})."
        ) from error


# --- what is written ----------------------------------------------------------------------------


def _describe_parameters(model):
    described = {}
    for name, value in model.get_params(deep=False).items():
        if name == "estimator":
            described[name] = None if value is None else _describe_net(value, name)
        elif name in _PARTS:
            described[name] = _describe_part(value, name, _PARTS[name])
        else:
            described[name] = _plain(value, name)
    return described


def _describe_part(value, name, known):
    """A selector or a loss: None, "default", or class and parameters."""
    if value is None or (isinstance(value, str) and value == "default"):
        return value
    if type(value) is not known.get(type(value).__name__):
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved: only "
            f"{', '.join(sorted(known))} can. Keep the code of your own class, and the model by joblib."
        )
    parameters = value.get_params() if hasattr(value, "get_params") else {}
    return {
        "class": type(value).__name__,
        "parameters": {key: _plain(v, f"{name}.{key}") for key, v in parameters.items()},
    }


def _describe_net(net, name):
    cls = _class_of(net)
    if cls is None:
        raise TypeError(
            f"{name} is a {type(net).__module__}.{type(net).__qualname__}, which cannot be saved: only "
            f"{', '.join(sorted(_NETS))} can. Save the weights of your own net by torch.save(state_dict)."
        )
    parameters = net.get_params(deep=False)
    defaults = cls().set_params(**SIGNED_LABEL_SETTINGS).get_params(deep=False)
    described = {}
    for key, value in parameters.items():
        full = f"{name}.{key}"
        if key in _NET_PARAMETERS:
            described[key] = _plain(os.fspath(value) if key == "weights" and value else value, full)
        elif key.startswith("optimizer__"):
            described[key] = _plain(value, full)
        elif key in _NET_OWN or key.startswith("_") or key == "callbacks__valid_acc":
            continue
        elif key not in defaults or not _same(value, defaults[key]):
            raise TypeError(
                f"{full} is {value!r}, which cannot be saved: this parameter must have its default."
            )
    optimizer = parameters["optimizer"]
    if _OPTIMIZERS.get(getattr(optimizer, "__name__", None)) is not optimizer:
        raise TypeError(
            f"{name}.optimizer is {optimizer!r}, which cannot be saved: only "
            f"{', '.join(sorted(_OPTIMIZERS))} of torch.optim can."
        )
    return {"class": cls.__name__, "parameters": described, "optimizer": optimizer.__name__}


def _class_of(net):
    """Class that a net is saved as; None if it is not one of ours."""
    if type(net) is _RestoredMobileNetV2:
        return MobileNetV2Classifier
    return type(net) if type(net) in _NETS.values() else None


def _same(value, default):
    if isinstance(value, partial) and isinstance(default, partial):
        return (value.func, value.args, value.keywords) == (
            *(default.func, default.args, default.keywords),
        )
    return value is default or (type(value) is type(default) and bool(value == default))


def _plain(value, name):
    """A value that JSON holds exactly."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has no word for these: a loss that overflowed must not keep a model from being saved
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    hint = " Give an int." if name.endswith("random_state") else ""
    raise ValueError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved: only "
        f"numbers, strings, booleans, None and lists of these can.{hint}"
    )


def _describe_names(values, name):
    values = np.asarray(values)
    kind = values.dtype.kind
    listed = values.tolist()
    if kind not in _NAME_KINDS or (kind == "O" and not all(isinstance(v, str) for v in listed)):
        raise ValueError(
            f"{name} holds values of type {values.dtype}, which cannot be saved: integers, floating point "
            "numbers, booleans and strings can."
        )
    dtype = {"U": "str", "O": "object"}.get(kind, values.dtype.name)
    return {"dtype": dtype, "values": listed}


def _digest(text, tensors):
    """Hash of all that the file says, however its parts are laid out."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _write(path, data):
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# --- what is read -------------------------------------------------------------------------------


def _read(data):
    """Document and tensors of a file, both checked against the hash."""
    is_pickle = data[:1] == b"\x80" and data[8:9] != b"{"  # 0x80 may also be a length's first byte
    if is_pickle or data[:4] == b"PK\x03\x04":
        raise ModelFileError(
            "this looks like a pickle, joblib or torch file, which can run code when it is read; it was not "
            "read. Write the model with proportion_ssl.save."
        )
    tensors = read_tensors(data)  # checks header and offsets against the length of the file
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length].decode()).get("__metadata__") or {}
    if _KEY not in metadata:
        raise ModelFileError("it is a safetensors file, but not one of proportion_ssl.save.")
    if len(metadata[_KEY]) > _MAX_DOCUMENT:
        raise ModelFileError(f"its description has {len(metadata[_KEY]):,} characters.")
    header = json.loads(metadata[_KEY])
    text = header["model"]
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelFileError("it is a safetensors file, but not one of proportion_ssl.save.")
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ModelFileError(
            f"it has version {version!r} of the format, of package {document.get('package')!r}; this "
            f"package ({__version__}) reads version {VERSION}."
        )
    if header["sha256"] != _digest(text, tensors):
        raise ModelFileError(
            "its content does not agree with its hash: it is damaged. Copy it again."
        )
    return document, tensors


def _restore(document, tensors):
    fitted = dict(document["fitted"])
    model = _build_classifier(document["parameters"])
    arrays = {}
    for name, dtypes in _ARRAYS.items():
        if name in tensors:
            tensor = tensors.pop(name)
            if tensor.dtype not in dtypes:
                raise ModelFileError(f"{name} is of type {tensor.dtype}.")
            arrays[name] = tensor.numpy()
    unknown = set(fitted) - set(_PLAIN) - set(_NAMES)
    unknown |= {name for name in tensors if not name.startswith("net.")}
    if unknown:
        raise ModelFileError(f"it holds the unknown attribute {min(unknown)!r}.")
    missing = {"classes_", "is_images_", "n_features_in_", "history_", "n_iter_"} - set(fitted)
    if missing:
        raise ModelFileError(f"it lacks the attribute {min(missing)!r}.")
    for name in _PLAIN:
        if name in fitted:
            setattr(model, name, _from_plain(fitted[name]))
    for name in _NAMES:
        if name in fitted:
            setattr(model, name, _build_names(fitted[name], name))
    for name, array in arrays.items():
        setattr(model, name, array)
    state = {name.removeprefix("net."): value for name, value in tensors.items()}
    model.estimator_ = _build_net(document["net"], state, model)
    _check_fitted(model)
    return model


def _build_classifier(parameters):
    known = NegativePseudoLabelClassifier().get_params(deep=False)
    _check_names(parameters, known, "the classifier")
    built = {}
    for name, value in parameters.items():
        if name == "estimator":
            built[name] = None if value is None else _new_net(value, _NETS)
        elif name in _PARTS:
            built[name] = _build_part(value, name)
        else:
            built[name] = _from_plain(value)
    model = NegativePseudoLabelClassifier(**built)
    model._validate_params()
    return model


def _build_part(value, name):
    if value is None or (value == "default" and name.endswith("selector")):
        return value
    cls = _look_up(value["class"], _PARTS[name], name)
    parameters = value["parameters"]
    known = cls().get_params() if hasattr(cls, "get_params") else {}
    _check_names(parameters, known, cls.__name__)
    part = cls(**{key: _from_plain(v) for key, v in parameters.items()})
    if hasattr(part, "_validate_params"):
        part._validate_params()
    return part


def _new_net(described, classes):
    """A net with its parameters, not yet initialised."""
    cls = _look_up(described["class"], classes, "net")
    parameters = described["parameters"]
    known = [n for n in _NET_PARAMETERS if n in cls().get_params(deep=False)]
    if not isinstance(parameters, dict):
        raise ModelFileError("the parameters of the net are not a table.")
    own = {key: v for key, v in parameters.items() if not re.fullmatch(r"optimizer__\w+", key)}
    _check_names(own, known, cls.__name__)
    values = {key: _from_plain(value) for key, value in parameters.items()}
    values["optimizer"] = _look_up(described["optimizer"], _OPTIMIZERS, "optimizer")
    return cls(**values)


def _build_net(described, state, model):
    """The fitted net: its sizes come from the tensors, never from what the file claims."""
    classes = {"HeadClassifier": HeadClassifier, "MobileNetV2Classifier": _RestoredMobileNetV2}
    net = _new_net(described, classes)
    prefix = "" if isinstance(net, HeadClassifier) else "head."
    weight = state.get(f"{prefix}linear.weight")
    if weight is None or weight.ndim != 2 or len(weight) != len(model.classes_):
        raise ModelFileError(
            f"its last layer does not fit {len(model.classes_)} classes: weights of shape "
            f"{None if weight is None else tuple(weight.shape)}."
        )
    if len(model.classes_) < 2 or (prefix and weight.shape[1] != N_FEATURES):
        raise ModelFileError(f"its last layer has weights of shape {tuple(weight.shape)}.")
    net.set_params(
        **SIGNED_LABEL_SETTINGS,
        criterion__positive=model.positive_loss or PositiveLoss(),
        criterion__negative=model.negative_loss or MultiNegativeLoss(),
    )
    weights = getattr(net, "weights", None)
    if prefix:
        net.weights = None  # the layers come from this file, not from where they once came from
    net.classes_inferred_ = model.classes_
    net.data_shape_ = (weight.shape[1],)
    with torch.random.fork_rng(devices=[]):
        net.initialize()
    if prefix:
        net.weights = weights
        net.module_._batch_statistics = not net.freeze and weights is None
    _load_state(net.module_, state)
    net.module_.eval()
    return net


def _load_state(module, state):
    for name, expected in module.state_dict().items():
        given = state.get(name)
        if given is None or given.shape != expected.shape or given.dtype != expected.dtype:
            got = "is missing" if given is None else f"is {given.dtype} {tuple(given.shape)}"
            raise ModelFileError(
                f"the weight {name!r} {got}; expected {expected.dtype} {tuple(expected.shape)}."
            )
        if given.is_floating_point() and not torch.isfinite(given).all():
            raise ModelFileError(f"the weight {name!r} has values that are not finite.")
    more = sorted(set(state) - set(module.state_dict()))
    if more:
        raise ModelFileError(f"it holds the unknown weight {more[0]!r}.")
    module.load_state_dict(state)


def _check_fitted(model):
    """Whether the fitted attributes fit together."""
    arrays = [hasattr(model, name) for name in (*_ARRAYS, "bag_names_")]
    if any(arrays) and not all(arrays):
        raise ModelFileError("its pseudo labels are incomplete.")
    if all(arrays):
        n_instances, n_bags = len(model.bag_index_), len(model.bag_names_)
        shape = (n_instances, len(model.classes_))
        index = model.bag_index_
        if (
            *(model.signed_labels_.shape, model.label_rounds_.shape),
            index.ndim,
        ) != (shape, shape, 1) or (n_instances and not (0 <= index.min() <= index.max() < n_bags)):
            raise ModelFileError("its pseudo labels do not fit its bags and classes.")
    is_images, n_features = model.is_images_, model.n_features_in_
    head = isinstance(model.estimator_, HeadClassifier)
    width = model.estimator_.data_shape_[0]
    if (
        *(type(is_images), type(n_features)),
        n_features,
    ) != (bool, int, 3 if is_images else width) or (head and is_images):
        raise ModelFileError("its number of features does not fit its weights.")
    names = getattr(model, "feature_names_in_", None)
    if names is not None and len(names) != n_features:
        raise ModelFileError("its names of features do not fit their number.")
    if len(set(model.classes_.tolist())) != len(model.classes_):
        raise ModelFileError("a class occurs twice in it.")


def _check_names(given, known, what):
    if not isinstance(given, dict):
        raise ModelFileError(f"the parameters of {what} are not a table.")
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ModelFileError(f"it sets the unknown parameter {unknown[0]!r} of {what}.")


def _look_up(name, known, what):
    if not isinstance(name, str) or name not in known:
        raise ModelFileError(
            f"it names the {what} {str(name)[:80]!r}; a file may name {', '.join(sorted(known))}."
        )
    return known[name]


def _from_plain(value):
    if isinstance(value, list):
        return [_from_plain(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"float"}:
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value["float"]]
        return {key: _from_plain(item) for key, item in value.items()}
    return value


def _build_names(described, name):
    """Array of names; its type is one of a few, its width comes from the values."""
    dtype, values = described["dtype"], described["values"]
    match = re.fullmatch(r"(bool|str|object|u?int(?:8|16|32|64)|float(?:16|32|64))", str(dtype))
    if match is None or not isinstance(values, list):
        raise ModelFileError(f"{name} has the type {str(dtype)[:80]!r}.")
    python = {"b": bool, "s": str, "o": str, "u": int, "i": int, "f": float}[dtype[0]]
    if not all(type(value) is python for value in values):
        raise ModelFileError(f"{name} holds values that are not of type {dtype}.")
    return np.array(values, dtype=dtype)


class _RestoredMobileNetV2(MobileNetV2Classifier):
    """A MobileNetV2 whose frozen layers are those of its file, wherever these once came from."""

    def embed(self, X: Any) -> Any:
        if not self.freeze or not hasattr(self, "module_"):
            return super().embed(X)
        if isinstance(X, SignedDataset) or len(X.shape) == 2:
            return X
        check_images(X)
        return PatchEmbedder(module=self.module_.backbone).transform(X)

    def fit(self, X: Any, y: Any, groups: Any = None, **fit_params: Any) -> SignedLabelNet:
        """Fit anew, from where ``weights`` says."""
        return super().fit(super().embed(X), y, groups, **fit_params)
