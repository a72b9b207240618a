"""Convert parameters and plain values to JSON without loss, and back."""

import inspect
import math
import os
import re
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator

from proportion_ssl._kept import Kept
from proportion_ssl._sklearn import validate_parameter_constraints
from proportion_ssl.persistence._errors import ModelFileError
from proportion_ssl.persistence._restored import class_of
from proportion_ssl.persistence._tables import (
    FUNCTIONS,
    MAX_INT,
    MODELS,
    NET_CONSTRAINTS,
    NET_IGNORED,
    NETS,
    OPTIMIZERS,
    PARTS,
)

MAX_CHARACTERS = 2**24  # of an array of names, padding included

OWN_NET = (
    " For a net of your own keep its code, and save its weights with safetensors.torch.save_file or the "
    "whole model with joblib."
)
OWN_PART = (
    " The fitted model does not need it to predict: replace it by one of these or the default with "
    "set_params, and save again; or save the model with joblib and keep the code of your class."
)


# --- what is written ----


def cannot(name, value, known):
    cls = type(value)
    return (
        f"{name} is a {cls.__module__}.{cls.__qualname__}, which cannot be saved; only "
        f"{', '.join(sorted(c.__name__ for c in known))} can."
    )


def describe(thing, name):
    """Class and parameters."""
    cls = class_of(thing)
    parameters = _parameters_of(thing)
    if cls in NETS:
        parameters = _kept_parameters(cls, parameters, name)
    return {
        "class": cls.__name__,
        "parameters": {
            key: encode(value, f"{name}.{key}", _models_in(cls, key))
            for key, value in sorted(parameters.items())
        },
    }


def _models_in(cls, parameter):
    """Classes of models that a parameter may hold, because a fitted one is an attribute."""
    kept = getattr(cls, "_kept", Kept())
    return tuple(
        model for model in MODELS if issubclass(model, kept.within.get(f"{parameter}_", ()))
    )


def _parameters_of(thing):
    """Constructor arguments by name."""
    if hasattr(thing, "get_params"):
        return thing.get_params(deep=False)
    return {name: getattr(thing, name) for name in _arguments(type(thing))}


def _arguments(cls):
    named = inspect.signature(cls).parameters.values()
    return [p.name for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _describe_frame(frame, name):
    """Describe a DataFrame: values by column, and the index."""
    columns = {}
    for column in frame.columns:
        values = frame[column].to_numpy()
        if not isinstance(column, str) or values.dtype.kind not in "bifUO":
            raise ValueError(
                f"The column {column!r} of {name} is of type {values.dtype}, which cannot be saved; "
                "columns need string names, and booleans, numbers or strings as values."
            )
        columns[column] = [encode(value, f"{name}[{column!r}]") for value in values.tolist()]
    index = {"name": encode(frame.index.name, name), "values": describe_names(frame.index, name)}
    return {"columns": columns, "index": index}


def _kept_parameters(cls, parameters, name):
    defaults = cls().get_params(deep=False)
    kept = {}
    for key, value in parameters.items():
        if key in NET_CONSTRAINTS or key.startswith("optimizer__"):
            kept[key] = value
        elif key.startswith("_") or key in NET_IGNORED:
            continue
        elif key not in defaults or not same(value, defaults[key]):
            raise TypeError(
                f"{name}.{key} is {value!r}, which cannot be saved: only its default can. "
                f"Parameters that can have any value: {', '.join(NET_CONSTRAINTS)}."
            )
    return kept


def same(value, default):
    if isinstance(value, partial) and isinstance(default, partial):
        return (value.func, value.args, value.keywords) == (
            *(default.func, default.args, default.keywords),
        )
    return value is default or (type(value) is type(default) and bool(value == default))


def encode(value, name, models=()):
    """Convert a value to JSON without loss; it may be an instance of one of the models."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has no inf and nan, but a model with an overflowed loss must be savable
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, name) for item in value]}
    if isinstance(value, list):
        return [encode(item, name) for item in value]
    if isinstance(value, dict) and all(isinstance(k, str) and k[:1] != "$" for k in value):
        return {key: encode(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, type) and value in OPTIMIZERS:
        return {"$optimizer": value.__name__}
    if any(value is function for function in FUNCTIONS):
        return {"$function": value.__name__}
    if isinstance(value, np.ndarray | pd.Index):
        return {"$names": describe_names(value, name)}
    if isinstance(value, pd.DataFrame):
        return {"$table": _describe_frame(value, name)}
    if class_of(value) in (*PARTS, *NETS, *models):
        return {"$object": describe(value, name)}
    if isinstance(value, np.random.RandomState | np.random.Generator):
        raise ValueError(
            f"{name} is a random number generator, which cannot be saved. Replace it by a number or None "
            "with set_params; the fitted model does not need it to predict."
        )
    if isinstance(value, type):
        names = ", ".join(sorted(cls.__name__ for cls in OPTIMIZERS))
        raise TypeError(
            f"{name} is {value.__module__}.{value.__qualname__}, which cannot be saved; of torch.optim only "
            f"{names} can."
        )
    if name.endswith("estimator"):
        raise TypeError(cannot(name, value, NETS) + OWN_NET)
    if isinstance(value, torch.nn.Module | BaseEstimator) or hasattr(value, "transform"):
        raise TypeError(cannot(name, value, PARTS) + OWN_PART)
    if callable(value):
        names = ", ".join(sorted(function.__name__ for function in FUNCTIONS))
        raise TypeError(
            f"{name} is {value!r}, a function that cannot be saved; only {names} can.{OWN_PART}"
        )
    raise ValueError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be saved: only "
        "numbers, strings, booleans, None, and lists, tuples and tables of these can."
    )


def describe_names(values, name):
    values = np.asarray(values)
    kind, listed = values.dtype.kind, values.tolist()
    plain = kind in "biufU" and values.ndim == 1
    plain &= kind != "f" or bool(np.isfinite(values).all())
    strings = kind == "O" and values.ndim == 1 and all(type(value) is str for value in listed)
    if not (plain or strings):
        raise ValueError(
            f"{name} holds values of type {values.dtype}, which cannot be saved: strings, integers, booleans "
            f"and finite numbers can. Use such labels."
        )
    if kind != "U":
        return {"dtype": values.dtype.name, "values": listed}
    longest = max(map(len, listed), default=0)
    width = values.dtype.itemsize // 4
    width = width if width * len(listed) <= MAX_CHARACTERS else longest
    return {"dtype": "str", "width": max(1, width), "values": listed}


def array_tensor(value, array, name):
    """Convert an array of numbers to a tensor."""
    value = np.asarray(value)
    if value.dtype != array.dtype or value.ndim != len(array.sides):
        raise ValueError(
            f"{name} is an array of {value.dtype} and {value.ndim} axes, which cannot be saved: it must have "
            f"{array.dtype} and {len(array.sides)}."
        )
    return torch.from_numpy(np.array(value, order="C"))


# --- what is read ----


def built_array(tensor, array, name, sides):
    """Convert a tensor to an array, checked by type and size."""
    if tensor is None:
        raise ModelFileError(f"it lacks the attribute {name!r}.")
    value = tensor.numpy()
    wanted = tuple(sides.get(side) for side in array.sides)
    fits = value.ndim == len(wanted) and value.dtype == array.dtype
    if not fits or any(w not in (None, n) for w, n in zip(wanted, value.shape, strict=True)):
        raise ModelFileError(
            f"{name} is {value.dtype} {value.shape}; expected {array.dtype} {wanted}."
        )
    if array.finite and not np.isfinite(value).all():
        raise ModelFileError(f"{name} has values that are not finite.")
    return value


def build(described, known, what):
    """Build an instance of one of the known classes, with checked parameters."""
    cls = look_up(described["class"], known, what)
    given = described["parameters"]
    if not isinstance(given, dict):
        raise ModelFileError(f"the parameters of {cls.__name__} are not a table.")
    values = {key: decode(value, _models_in(cls, key)) for key, value in given.items()}
    unknown = sorted(set(values) - _parameter_names(cls, values.get("optimizer")))
    if unknown:
        raise ModelFileError(
            f"it sets the unknown parameter {unknown[0][:80]!r} of {cls.__name__}."
        )
    thing = cls(**values)
    if cls in NETS:
        check_net(thing)
    elif issubclass(cls, BaseEstimator):
        thing._validate_params()
    return thing


def check_net(net):
    """Raise unless the parameters of a net have valid values."""
    values = {k: v for k, v in net.get_params(deep=False).items() if k in NET_CONSTRAINTS}
    for name, value in values.items():
        if isinstance(value, bool) and name not in (
            "freeze",
            "verbose",
        ):  # bool is a subclass of int
            raise ModelFileError(f"the {name!r} parameter of {type(net).__name__} is {value}.")
    validate_parameter_constraints(
        {name: NET_CONSTRAINTS[name] for name in values}, values, type(net).__name__
    )


def _parameter_names(cls, optimizer):
    """Parameters that a file may set."""
    if cls in NETS:
        net = cls().get_params(deep=False)
        criteria = {name for name in NET_CONSTRAINTS if name.startswith("criterion__")}
        of_optimizer = inspect.signature(optimizer).parameters if optimizer in OPTIMIZERS else ()
        own = {f"optimizer__{name}" for name in of_optimizer if name != "params"}
        return {*(name for name in NET_CONSTRAINTS if name in net), *criteria, *own}
    return set(cls._get_param_names() if issubclass(cls, BaseEstimator) else _arguments(cls))


def decode(value, models=()):
    """Inverse of :func:`encode`."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, int) and abs(value) > MAX_INT:
        raise ModelFileError("it holds a number of more than 64 bits.")
    if not isinstance(value, dict):
        return value
    kind = next((key for key in value if key.startswith("$")), None)
    if kind is None:
        return {key: decode(item) for key, item in value.items()}
    if len(value) == 1:
        content = value[kind]
        if kind == "$float" and content in ("nan", "inf", "-inf"):
            return float(content)
        if kind == "$tuple" and isinstance(content, list):
            return tuple(decode(item) for item in content)
        if kind == "$optimizer":
            return look_up(content, OPTIMIZERS, "optimizer")
        if kind == "$function":
            return look_up(content, FUNCTIONS, "function")
        if kind == "$object":
            check_table(content, {"class", "parameters"}, "a part")
            return build(content, (*PARTS, *NETS, *models), "part")
        if kind == "$names":
            return build_names(content, "an array of names")
        if kind == "$table":
            return _build_frame(content)
    raise ModelFileError(f"it holds a value of the unknown kind {kind[:80]!r}.")


def _build_frame(content):
    check_table(content, {"columns", "index"}, "a table")
    columns, index = content["columns"], content["index"]
    check_table(index, {"name", "values"}, "the index of a table")
    labels = build_names(index["values"], "the index of a table")
    if not isinstance(columns, dict) or not isinstance(index["name"], str | None):
        raise ModelFileError("a table has no columns, or its index no name.")
    built = {}
    for name, values in columns.items():
        values = decode(values)
        kinds = {type(value) for value in values} if isinstance(values, list) else set()
        if kinds not in ({bool}, {int}, {float}, {str}) or len(values) != len(labels):
            raise ModelFileError(f"the column {name[:80]!r} of a table is damaged.")
        built[name] = values
    return pd.DataFrame(built, index=pd.Index(labels, name=index["name"]))


def look_up(name, known, what):
    classes = {cls.__name__: cls for cls in known}
    if not isinstance(name, str) or name not in classes:
        raise ModelFileError(
            f"it names the {what} {str(name)[:80]!r}; a file may name {', '.join(sorted(classes))}."
        )
    return classes[name]


def check_table(value, keys, what):
    if not isinstance(value, dict) or set(value) != keys:
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ModelFileError(f"the entry of {what} must have {sorted(keys)}; got {str(got)[:200]}.")


def build_names(described, name):
    """Build an array of names of an allowed type and bounded size."""
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
        width: Any = described.get("width")
        longest = max(map(len, values), default=0)
        is_width = type(width) is int and max(1, longest) <= width
        if not is_width or width * len(values) > max(MAX_CHARACTERS, longest * len(values)):
            raise ModelFileError(f"{name} has the width {str(width)[:80]}.")
        dtype = f"<U{width}"
    return np.array(values, dtype=dtype)
