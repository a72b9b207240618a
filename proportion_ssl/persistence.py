"""Save a fitted classifier to one file, and load it without running anything that the file says.

The file is in the safetensors format: weights and other arrays as tensors, everything else as JSON
in its header. A file names classes, and they are looked up in the tables below; nothing is imported
by a name that a file gives, and nothing is unpickled.

To make a classifier savable that derives from :class:`~proportion_ssl.base.NetBagClassifier`, add it
to ``_CLASSIFIERS`` with the attributes that every fitted one has. An attribute that no other
classifier has needs a line in ``_PLAIN``, ``_NAMES`` or ``_ARRAYS`` too; :func:`save` says so.
"""

import hashlib
import inspect
import json
import math
import os
import re
import secrets
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._version import __version__
from proportion_ssl.audit import RULES, LabelLog
from proportion_ssl.base import NetBagClassifier
from proportion_ssl.classifier import NegativePseudoLabelClassifier
from proportion_ssl.embedding import PatchEmbedder
from proportion_ssl.losses import MultiNegativeLoss, NegativeLoss, PositiveLoss
from proportion_ssl.nets.data import SignedDataset
from proportion_ssl.nets.mobilenet import N_FEATURES, check_images
from proportion_ssl.nets.net import HeadClassifier, MobileNetV2Classifier, SignedLabelNet
from proportion_ssl.selection import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    ThresholdSelector,
)

__all__ = ["ModelFileError", "load", "save"]

FORMAT = "proportion_ssl model"
VERSION = 1  # raise it when a file of today would be read wrongly, or not at all
_KEY = "proportion_ssl"
_MAX_HEADER = 2**24  # bytes
_MAX_INT = 2**63 - 1
_MAX_CHARACTERS = 2**24  # of an array of names, padding included

#: Classifiers that can be saved, each with what a fitted one has beside ``_OF_ALL``.
_CLASSIFIERS: dict[type, tuple[str, ...]] = {
    NegativePseudoLabelClassifier: (
        *("history_", "n_iter_", "refit_history_", "termination_condition_"),
    ),
}
_NETS = (HeadClassifier, MobileNetV2Classifier)
#: What a parameter may be an instance of, beside nets and plain values.
_PARTS = (
    *(AdaptiveSelector, AssignmentSelector, NegativeSelector, ThresholdSelector),
    *(MultiNegativeLoss, NegativeLoss, PositiveLoss),
)
_OPTIMIZERS = (torch.optim.RAdam, torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)

# Fitted attributes, by what they hold. A file may set these and no others.
_OF_ALL = ("classes_", "is_images_", "n_features_in_")
_PLAIN = {
    "history_": (list,),
    "is_images_": (bool,),
    "n_features_in_": (int,),
    "n_iter_": (int,),
    "refit_history_": (dict, NoneType),
    "termination_condition_": (str,),
}
_NAMES = ("bag_names_", "classes_", "feature_names_in_")
_ARRAYS = {
    "bag_index_": np.dtype(np.int64),
    "label_rounds_": np.dtype(np.int32),
    "signed_labels_": np.dtype(np.int8),
}
_LOG = {"cells": torch.int64, "rules": torch.int8, "lengths": torch.int64}

#: Parameters of a net that are kept; any other must have its default.
_NET_CONSTRAINTS = {
    "lr": [Interval(Real, 0, None, closed="left"), None],
    "weight_decay": [Interval(Real, 0, None, closed="left"), None],
    "batch_size": [Interval(Integral, 1, _MAX_INT, closed="both"), Options(Integral, {-1})],
    "max_epochs": [Interval(Integral, 0, None, closed="left")],
    "patience": [Interval(Integral, 0, None, closed="left")],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "dropout": [Interval(Real, 0, 1, closed="both")],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "weights": [str, None],
    "freeze": ["boolean"],
    "optimizer": [Options(type, set(_OPTIMIZERS))],
    "criterion__positive": [HasMethods("instance_losses")],
    "criterion__negative": [HasMethods("instance_losses")],
}
_NET_IGNORED = ("device", "callbacks__valid_acc")


class ModelFileError(ValueError):
    """A model file that is damaged, of another version, or not a model of this package."""


def save(model: NetBagClassifier | SignedLabelNet, path: str | os.PathLike[str]) -> None:
    """Write a fitted classifier to one file that :func:`load` reads.

    The file appears under its name only when it is complete and was found to be readable; until
    then a file of that name stays as it is.

    Parameters
    ----------
    model : NegativePseudoLabelClassifier, HeadClassifier or MobileNetV2Classifier
        Fitted, with nets, selectors and losses of this package.
    path : str or path-like
        Where to write, such as ``"lung.safetensors"``; replaced if it exists. A head on 1280 features
        takes some 50 kB plus its pseudo labels, a MobileNetV2 some 9 MB more.

    Raises
    ------
    TypeError
        If the model, or a part of it, is of a class that cannot be saved. The part is named.
    ValueError
        If a setting, a name or a weight is of a kind that cannot be saved. It is named.
    NotFittedError
        If the model was not fitted.

    See Also
    --------
    load : Read the file.

    Notes
    -----
    Kept are the parameters, the fitted attributes and the weights. Not kept are what belongs to
    training alone, the state of the optimiser and the net's own record of epochs, and what belongs to
    the machine, the device. ``weights`` of a MobileNetV2, if it is a path, is kept as text.

    Equal models give equal files, byte for byte, with equal versions of the package.

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
    path = Path(path)
    data = _to_bytes(model)
    try:
        restored = _from_bytes(data)
    except ModelFileError as error:
        raise ValueError(f"The model cannot be saved: {error}") from error
    _check_same_net(_net_of(model), _net_of(restored))
    _write(path, data)


def load(path: str | os.PathLike[str]) -> NetBagClassifier | SignedLabelNet:
    """Read a classifier that :func:`save` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    model : NegativePseudoLabelClassifier, HeadClassifier or MobileNetV2Classifier
        Of the class that was saved; fitted, on the CPU. It predicts the same, bit for bit on the same
        machine with the same versions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is truncated, damaged, of an unknown version, or says something that no saved model
        says; a ``ValueError`` that names the file and what is wrong.

    See Also
    --------
    save : Write the file.

    Notes
    -----
    Whatever the file holds, reading it runs no code from it, opens no other file and uses no
    network. Its hash finds accidents; it is no signature, so that a file from strangers loads safely
    but may predict anything. Layers of a MobileNetV2 come from the file; ``fit`` of a loaded model
    starts from where ``weights`` says, as that of a new one.

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
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        try:
            _check_start(start, size)
        except ModelFileError as error:
            raise ModelFileError(f"{str(path)!r} cannot be loaded: {error}") from error
        data = start + file.read(size - len(start))
    try:
        return _from_bytes(data)
    except ModelFileError as error:
        raise ModelFileError(f"{str(path)!r} cannot be loaded: {error}") from error


# --- what is written ----------------------------------------------------------------------------


def _to_bytes(model):
    """The whole file."""
    net = _net_of(model)
    tensors = {f"net.{name}": _copy(value) for name, value in net.module_.state_dict().items()}
    described = _describe(model, type(model).__name__)
    if net is model:
        fitted = {"classes_": _describe_names(net.classes_, "classes_")}
    else:
        fitted = _describe_fitted(model, tensors)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "package": __version__,
        "model": {**described, "fitted": fitted, "data_shape": list(net.data_shape_)},
    }
    text = json.dumps({**document, "sha256": _digest(document, tensors)}, allow_nan=False)
    data = tensor_bytes(tensors, {_KEY: text})  # one key: safetensors writes several in any order
    try:
        _check_start(data[:9], len(data))
    except ModelFileError as error:
        raise ValueError(f"The model cannot be saved: {error}") from error
    return data


def _net_of(model):
    """The fitted net of a model that can be saved."""
    if _class_of(model) in _NETS:
        if not model.initialized_ or not hasattr(model, "classes_inferred_"):
            raise NotFittedError(f"This {type(model).__name__} is not fitted; fit it first.")
        return model
    if type(model) not in _CLASSIFIERS:
        names = ", ".join(sorted(cls.__name__ for cls in (*_CLASSIFIERS, *_NETS)))
        raise TypeError(
            f"A {type(model).__name__} cannot be saved, only {names} can. Of a model around such a "
            "one save that which is within (pipeline[-1], search.best_estimator_, the classifier_ of a "
            "RobustProportionClassifier); a class of your own can be kept by joblib, with its code."
        )
    check_is_fitted(model)
    if _class_of(model.estimator_) not in _NETS:
        raise TypeError(_cannot("estimator_", model.estimator_, _NETS) + _OWN_NET)
    return model.estimator_


def _class_of(thing):
    """Class that a net or part is saved as."""
    return MobileNetV2Classifier if type(thing) is _RestoredMobileNetV2 else type(thing)


_OWN_NET = (
    " For a net of your own keep its code, and its weights by safetensors.torch.save_file or the whole "
    "model by joblib."
)
_OWN_PART = (
    " The fitted model does not need it to predict: put one of these, or the default, in its place by "
    "set_params and save again; or keep the code of your own class, and the model by joblib."
)


def _cannot(name, value, known):
    cls = type(value)
    return (
        f"{name} is a {cls.__module__}.{cls.__qualname__}, which cannot be saved; only "
        f"{', '.join(sorted(c.__name__ for c in known))} can."
    )


def _describe(thing, name):
    """Class and parameters."""
    cls = _class_of(thing)
    parameters = thing.get_params(deep=False) if hasattr(thing, "get_params") else {}
    if cls in _NETS:
        parameters = _kept_parameters(cls, parameters, name)
    return {
        "class": cls.__name__,
        "parameters": {
            key: _encode(value, f"{name}.{key}") for key, value in sorted(parameters.items())
        },
    }


def _kept_parameters(cls, parameters, name):
    defaults = cls().get_params(deep=False)
    kept = {}
    for key, value in parameters.items():
        if key in _NET_CONSTRAINTS or key.startswith("optimizer__"):
            kept[key] = value
        elif key.startswith("_") or key in _NET_IGNORED:
            continue
        elif key not in defaults or not _same(value, defaults[key]):
            raise TypeError(
                f"{name}.{key} is {value!r}, which cannot be saved: it must have its default. "
                f"Parameters that can have any value: {', '.join(_NET_CONSTRAINTS)}."
            )
    return kept


def _same(value, default):
    if isinstance(value, partial) and isinstance(default, partial):
        return (value.func, value.args, value.keywords) == (
            *(default.func, default.args, default.keywords),
        )
    return value is default or (type(value) is type(default) and bool(value == default))


def _describe_fitted(model, tensors):
    """Fitted attributes as JSON; arrays go to the tensors."""
    fitted = {}
    parameters = model.get_params(deep=False)
    for name, value in sorted(vars(model).items()):
        if name in parameters or name in ("estimator_", "_metadata_request"):
            continue
        if name in _ARRAYS:
            tensors[name] = torch.from_numpy(np.array(value, dtype=_ARRAYS[name], order="C"))
        elif name == "label_log_":
            tensors.update(_log_tensors(value))
        elif name in _NAMES:
            fitted[name] = _describe_names(value, name)
        elif name in _PLAIN:
            fitted[name] = _encode(value, name)
        else:
            raise ValueError(
                f"The model has the attribute {name!r}, which proportion_ssl.persistence does not know how "
                "to save. If you set it yourself, delete it first."
            )
    return fitted


def _log_tensors(log):
    """The changes of all rounds one after the other, and how many each round has."""
    changes = log.changes
    cells = [np.asarray(cells, dtype=np.int64) for cells, _ in changes]
    rules = [np.asarray(rules, dtype=np.int8) for _, rules in changes]
    return {
        "label_log_.cells": torch.from_numpy(np.concatenate([np.empty(0, np.int64), *cells])),
        "label_log_.rules": torch.from_numpy(np.concatenate([np.empty(0, np.int8), *rules])),
        "label_log_.lengths": torch.tensor([len(part) for part in cells], dtype=torch.int64),
    }


def _encode(value, name):
    """A value as JSON that says exactly what it was."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has no word for the others: a loss that overflowed must not keep a model from being saved
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(item, name) for item in value]}
    if isinstance(value, list):
        return [_encode(item, name) for item in value]
    if isinstance(value, dict) and all(isinstance(k, str) and k[:1] != "$" for k in value):
        return {key: _encode(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, type) and value in _OPTIMIZERS:
        return {"$optimizer": value.__name__}
    if _class_of(value) in (*_PARTS, *_NETS):
        return {"$object": _describe(value, name)}
    if isinstance(value, np.random.RandomState | np.random.Generator):
        raise ValueError(
            f"{name} is a generator of random numbers, which cannot be saved. Put a number or None in its "
            "place by set_params; the fitted model does not need it to predict."
        )
    if isinstance(value, type):
        names = ", ".join(sorted(cls.__name__ for cls in _OPTIMIZERS))
        raise TypeError(
            f"{name} is {value.__module__}.{value.__qualname__}, which cannot be saved; of torch.optim only "
            f"{names} can."
        )
    if name.endswith("estimator"):
        raise TypeError(_cannot(name, value, _NETS) + _OWN_NET)
    if isinstance(value, torch.nn.Module | BaseEstimator) or hasattr(value, "transform"):
        raise TypeError(_cannot(name, value, _PARTS) + _OWN_PART)
    raise ValueError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved: only "
        "numbers, strings, booleans, None, and lists, tuples and tables of these can."
    )


def _describe_names(values, name):
    values = np.asarray(values)
    kind, listed = values.dtype.kind, values.tolist()
    plain = kind in "biufU" and values.ndim == 1
    plain &= kind != "f" or bool(np.isfinite(values).all())
    strings = kind == "O" and values.ndim == 1 and all(type(value) is str for value in listed)
    if not (plain or strings):
        raise ValueError(
            f"{name} holds values of type {values.dtype}, which cannot be saved: strings, integers, booleans "
            f"and finite numbers can. Label the data by these."
        )
    if kind != "U":
        return {"dtype": values.dtype.name, "values": listed}
    longest = max(map(len, listed), default=0)
    width = values.dtype.itemsize // 4
    width = width if width * len(listed) <= _MAX_CHARACTERS else longest
    return {"dtype": "str", "width": max(1, width), "values": listed}


def _copy(tensor):
    return tensor.detach().to("cpu", copy=True).contiguous()


def _digest(document, tensors):
    """Hash of all that the file says, however its parts are laid out."""
    text = json.dumps(document, allow_nan=False, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
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


def _check_same_net(net, restored):
    """Whether the parameters still describe the net that was fitted."""
    for what in ("freeze", "predict_nonlinearity", "module"):
        fitted, described = getattr(net, what, None), getattr(restored, what, None)
        if not _same(fitted, described):
            raise ValueError(
                f"The model cannot be saved: its net was fitted with {what}={fitted!r}, but its parameters "
                f"now say {described!r}. Set them as they were, or fit again."
            )


# --- what is read -------------------------------------------------------------------------------


def _check_start(start, size):
    """What can be told before anything large is read or believed."""
    # 0x80 begins a pickle, but may also be the first byte of a length
    is_pickle = start[:1] == b"\x80" and start[8:9] != b"{"
    if is_pickle or start[:4] == b"PK\x03\x04":
        raise ModelFileError(
            "it looks like a pickle, joblib or torch file, which can run code when it is read; it was not "
            "read. Write the model with proportion_ssl.save."
        )
    if size < 10 or start[8:9] != b"{":
        raise ModelFileError("it is cut off, damaged, or no file of proportion_ssl.save.")
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        raise ModelFileError(
            f"its header should have {length:,} bytes, but the file has {size:,}: it is cut off or damaged."
        )
    if length > _MAX_HEADER:
        raise ModelFileError(
            f"its header has {length:,} bytes; more than {_MAX_HEADER:,} are not accepted."
        )


def _from_bytes(data):
    """The model of a file; whatever is wrong with it ends in a ModelFileError."""
    try:
        return _restore(*_parse(data))
    except ModelFileError:
        raise
    except Exception as error:  # depends on what the file says; all of them end here
        first = (str(error).splitlines() or [""])[0][:200]
        raise ModelFileError(
            f"it is damaged, or no file of proportion_ssl.save ({type(error).__name__}: {first})."
        ) from error


def _parse(data):
    """Description of the model, and tensors; both checked against the hash."""
    _check_start(data[:9], len(data))
    tensors = read_tensors(data)  # checks header and offsets against the length of the file
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = (header.get("__metadata__") or {}).get(_KEY)
    if text is None:
        raise ModelFileError("it is a safetensors file, but not one of proportion_ssl.save.")
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelFileError("it is a safetensors file, but not one of proportion_ssl.save.")
    version, package = document.get("version"), repr(document.get("package"))[:40]
    if type(version) is not int or version != VERSION:
        raise ModelFileError(
            f"it has version {repr(version)[:40]} of the format, written by proportion_ssl {package}; "
            f"this is proportion_ssl {__version__}, which reads version {VERSION}. Load it with the one that "
            "wrote it."
        )
    if document.pop("sha256", None) != _digest(document, tensors):
        raise ModelFileError(
            "its content does not agree with its hash: it is damaged. Copy it again."
        )
    return document["model"], tensors


def _restore(described, tensors):
    _check_table(described, {"class", "parameters", "fitted", "data_shape"}, "the model")
    model = _build(described, (*_CLASSIFIERS, *_NETS), "model")
    weights = {
        name.removeprefix("net."): tensors.pop(name)
        for name in list(tensors)
        if name.startswith("net.")
    }
    fitted, shape = described["fitted"], _check_shape(described["data_shape"])
    if type(model) in _NETS:
        _check_table(fitted, {"classes_"}, "the net")
        if tensors:
            raise ModelFileError(f"it holds the unknown attribute {min(tensors)[:80]!r}.")
        return _fill_net(model, weights, _build_names(fitted["classes_"], "classes_"), shape)
    _set_fitted(model, fitted, tensors)
    net = model._make_net(is_images=model.is_images_)
    _check_inputs(model, net, shape)
    model.estimator_ = _fill_net(net, weights, model.classes_, shape)
    return model


def _build(described, known, what):
    """Instance of one of the known classes, with checked parameters."""
    cls = _look_up(described["class"], known, what)
    given = described["parameters"]
    if not isinstance(given, dict):
        raise ModelFileError(f"the parameters of {cls.__name__} are not a table.")
    values = {key: _decode(value) for key, value in given.items()}
    unknown = sorted(set(values) - _parameter_names(cls, values.get("optimizer")))
    if unknown:
        raise ModelFileError(
            f"it sets the unknown parameter {unknown[0][:80]!r} of {cls.__name__}."
        )
    thing = cls(**values)
    if cls in _NETS:
        _check_net(thing)
    elif issubclass(cls, BaseEstimator):
        thing._validate_params()
    return thing


def _check_net(net):
    """Whether its parameters have values that a net can have."""
    values = {k: v for k, v in net.get_params(deep=False).items() if k in _NET_CONSTRAINTS}
    for name, value in values.items():
        if isinstance(value, bool) and name not in ("freeze", "verbose"):  # it passes for a number
            raise ModelFileError(f"the {name!r} parameter of {type(net).__name__} is {value}.")
    validate_parameter_constraints(
        {name: _NET_CONSTRAINTS[name] for name in values}, values, type(net).__name__
    )


def _parameter_names(cls, optimizer):
    """Parameters that a file may set."""
    if cls in _NETS:
        net = cls().get_params(deep=False)
        criteria = {name for name in _NET_CONSTRAINTS if name.startswith("criterion__")}
        of_optimizer = inspect.signature(optimizer).parameters if optimizer in _OPTIMIZERS else ()
        own = {f"optimizer__{name}" for name in of_optimizer if name != "params"}
        return {*(name for name in _NET_CONSTRAINTS if name in net), *criteria, *own}
    return set(cls._get_param_names()) if issubclass(cls, BaseEstimator) else set()


def _decode(value):
    """What :func:`_encode` was given."""
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, int) and abs(value) > _MAX_INT:
        raise ModelFileError("it holds a number of more than 64 bits.")
    if not isinstance(value, dict):
        return value
    kind = next((key for key in value if key.startswith("$")), None)
    if kind is None:
        return {key: _decode(item) for key, item in value.items()}
    if len(value) == 1:
        content = value[kind]
        if kind == "$float" and content in ("nan", "inf", "-inf"):
            return float(content)
        if kind == "$tuple" and isinstance(content, list):
            return tuple(_decode(item) for item in content)
        if kind == "$optimizer":
            return _look_up(content, _OPTIMIZERS, "optimizer")
        if kind == "$object":
            _check_table(content, {"class", "parameters"}, "a part")
            return _build(content, (*_PARTS, *_NETS), "part")
    raise ModelFileError(f"it holds a value of the unknown kind {kind[:80]!r}.")


def _look_up(name, known, what):
    classes = {cls.__name__: cls for cls in known}
    if not isinstance(name, str) or name not in classes:
        raise ModelFileError(
            f"it names the {what} {str(name)[:80]!r}; a file may name {', '.join(sorted(classes))}."
        )
    return classes[name]


def _check_table(value, keys, what):
    if not isinstance(value, dict) or set(value) != keys:
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ModelFileError(f"the entry of {what} must have {sorted(keys)}; got {str(got)[:200]}.")


def _set_fitted(model, fitted, tensors):
    """Set fitted attributes, all of which must be known, of the right type, and fit together."""
    logged = {name: tensors.pop(name) for name in list(tensors) if name.startswith("label_log_.")}
    if not isinstance(fitted, dict):
        raise ModelFileError("the fitted attributes are not a table.")
    names = {*fitted, *tensors}
    unknown = sorted({*fitted} - {*_PLAIN, *_NAMES} | {*tensors} - {*_ARRAYS})
    if unknown:
        raise ModelFileError(f"it holds the unknown attribute {unknown[0][:80]!r}.")
    missing = sorted({*_OF_ALL, *_CLASSIFIERS[type(model)]} - names)
    if missing:
        raise ModelFileError(f"it lacks the attribute {missing[0]!r}.")
    for name, value in fitted.items():
        if name in _NAMES:
            setattr(model, name, _build_names(value, name))
            continue
        value = _decode(value)
        if type(value) not in _PLAIN[name]:
            raise ModelFileError(f"{name} is a {type(value).__name__}.")
        setattr(model, name, value)
    for name, tensor in tensors.items():
        array = tensor.numpy()
        if array.dtype != _ARRAYS[name]:
            raise ModelFileError(f"{name} is of type {array.dtype} instead of {_ARRAYS[name]}.")
        setattr(model, name, array)
    if not all(type(entry) is dict for entry in getattr(model, "history_", [])):
        raise ModelFileError("history_ is no list of tables.")
    _check_classes(model.classes_, at_least=2)
    _set_labels(model, logged)


def _check_classes(classes, *, at_least):
    if len(classes) < at_least or len(set(classes.tolist())) != len(classes):
        raise ModelFileError(f"it has {len(classes)} classes, or one of them twice.")


def _set_labels(model, logged):
    """Check the pseudo labels against bags and classes, and rebuild their log."""
    given = [hasattr(model, name) for name in (*_ARRAYS, "bag_names_")]
    if not any(given) and not logged:
        return
    if not all(given):
        raise ModelFileError("its pseudo labels are incomplete.")
    index, n_bags = model.bag_index_, len(model.bag_names_)
    shape = (len(index) if index.ndim == 1 else -1, len(model.classes_))
    if model.signed_labels_.shape != shape or model.label_rounds_.shape != shape:
        raise ModelFileError("its pseudo labels do not fit its bags and classes.")
    if len(index) and not 0 <= index.min() <= index.max() < n_bags:
        raise ModelFileError("its pseudo labels name bags that it does not have.")
    if logged:
        model.label_log_ = _build_log(model, logged)


def _build_log(model, logged):
    if {key.removeprefix("label_log_."): tensor.dtype for key, tensor in logged.items()} != _LOG:
        raise ModelFileError("its log of pseudo labels is incomplete or of another type.")
    cells, rules, lengths = (logged[f"label_log_.{key}"].numpy() for key in _LOG)
    n_cells = model.signed_labels_.size
    fits = cells.shape == rules.shape == (len(cells),) and lengths.ndim == 1
    if (
        *(not fits, (lengths < 0).any(), (lengths > len(cells)).any()),
        *(sum(lengths.tolist()) != len(cells), (cells < 0).any(), (cells >= n_cells).any()),
        *((rules < 0).any(), (rules >= len(RULES)).any()),
    ) != (False,) * 8:
        raise ModelFileError("its log of pseudo labels does not fit its bags and classes.")
    ends = np.cumsum(lengths)
    changes = [
        (cells[end - n : end], rules[end - n : end]) for end, n in zip(ends, lengths, strict=True)
    ]
    return LabelLog.from_changes(model.bag_index_, model.bag_names_, model.classes_, changes)


def _check_inputs(model, net, shape):
    """Whether number and names of the features fit the net."""
    is_head, is_images = isinstance(net, HeadClassifier), model.is_images_
    inputs = (model.n_features_in_,) if is_head else (N_FEATURES,)
    n_features = 3 if is_images else inputs[0]
    is_raw = is_images and len(shape) == 3 and shape[2] == 3  # the images themselves
    if (is_head and is_images) or model.n_features_in_ != n_features:
        raise ModelFileError("its number of features does not fit its net.")
    if not (is_raw and not net.freeze if len(shape) == 3 else shape == inputs):
        raise ModelFileError(f"its data of shape {shape} do not fit its net.")
    names = getattr(model, "feature_names_in_", None)
    if names is not None and (len(names) != n_features or names.dtype != object):
        raise ModelFileError("its names of features do not fit their number.")


def _check_shape(shape):
    if not isinstance(shape, list) or len(shape) not in (1, 3):
        raise ModelFileError("the shape of its data is none.")
    if not all(type(side) is int and 0 < side < 2**31 for side in shape):
        raise ModelFileError("the shape of its data is none.")
    return tuple(shape)


def _fill_net(net, weights, classes, shape):
    """The net, fitted: with the weights of the file, which are all of its size and type."""
    _check_classes(classes, at_least=1)
    _check_net(net)  # the classifier may have set some of its parameters
    is_head = isinstance(net, HeadClassifier)
    n_features = shape[0] if is_head else N_FEATURES
    if len(classes) * n_features > sum(weight.numel() for weight in weights.values()):
        # before a net is built that is larger than the file
        raise ModelFileError(f"its weights are too few for {len(classes)} classes.")
    origin = None
    if not is_head:
        origin = net.weights
        parameters = net.get_params(deep=False)
        net = _RestoredMobileNetV2(**{k: v for k, v in parameters.items() if k[0] != "_"})
        net.weights = None  # the layers come from this file, not from where they once came from
    net.classes_inferred_, net.data_shape_ = classes, shape
    with torch.random.fork_rng(devices=[]):
        net.initialize()
    _load_state(net.module_, weights)
    if not is_head:
        net.weights = origin
        net.module_._batch_statistics = not net.freeze and origin is None
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
        raise ModelFileError(f"it holds the unknown weight {more[0][:80]!r}.")
    module.load_state_dict(state)


def _build_names(described, name):
    """Array of names; its type is one of a few, its size bounded."""
    if not isinstance(described, dict) or set(described) - {"width"} != {"dtype", "values"}:
        raise ModelFileError(f"{name} has no type or no values.")
    dtype, values = described["dtype"], described["values"]
    match = re.fullmatch(r"bool|str|object|u?int(?:8|16|32|64)|float(?:16|32|64)", str(dtype))
    if match is None or not isinstance(values, list):
        raise ModelFileError(f"{name} has the type {str(dtype)[:80]!r}.")
    python = {"b": bool, "s": str, "o": str, "u": int, "i": int, "f": float}[dtype[0]]
    if not all(type(value) is python for value in values):
        raise ModelFileError(f"{name} holds values that are not of type {dtype}.")
    if dtype == "str":
        width, longest = described.get("width"), max(map(len, values), default=0)
        is_width = type(width) is int and max(1, longest) <= width
        if not is_width or width * len(values) > max(_MAX_CHARACTERS, longest * len(values)):
            raise ModelFileError(f"{name} has the width {str(width)[:80]}.")
        dtype = f"<U{width}"
    return np.array(values, dtype=dtype)


class _RestoredMobileNetV2(MobileNetV2Classifier):
    """A MobileNetV2 whose frozen layers are those of its file, wherever these once came from."""

    def embed(self, X: Any) -> Any:
        if not self.freeze or not self.initialized_:
            return super().embed(X)
        if isinstance(X, SignedDataset) or len(X.shape) == 2:
            return X
        check_images(X)
        return PatchEmbedder(module=self.module_.backbone).transform(X)

    def fit(self, X: Any, y: Any, groups: Any = None, **fit_params: Any) -> SignedLabelNet:
        """Fit anew, from where ``weights`` says."""
        return super().fit(super().embed(X), y, groups, **fit_params)
