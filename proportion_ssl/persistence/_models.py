"""Save and load: models as tables of parameters, fitted attributes and weights."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._atomic import replacing
from proportion_ssl.estimators._base import BagClassifier
from proportion_ssl.estimators._with_net import NetBagClassifier
from proportion_ssl.estimators.tumor_proposer import TumorProposer
from proportion_ssl.nets.classifiers import SignedLabelNet
from proportion_ssl.nets.field_of_view import MultiFieldOfViewNet
from proportion_ssl.nets.random_numbers import seeded
from proportion_ssl.persistence._errors import ModelFileError
from proportion_ssl.persistence._file import check_start, pack, unpack
from proportion_ssl.persistence._kinds import is_segmenter_file
from proportion_ssl.persistence._labels import build_log, describe_log, log_tensors
from proportion_ssl.persistence._nets import (
    check_classes,
    check_feature_names,
    check_inputs,
    check_same_net,
    check_shape,
    copy_of,
    fill_module,
    fill_net,
)
from proportion_ssl.persistence._restored import class_of
from proportion_ssl.persistence._tables import MODELS, NAMES, NETS
from proportion_ssl.persistence._values import (
    OWN_NET,
    array_tensor,
    build,
    build_names,
    built_array,
    cannot,
    check_table,
    decode,
    describe,
    describe_names,
    encode,
)
from proportion_ssl.persistence._version_1 import check_copies, upgrade
from proportion_ssl.persistence._within import check_fusion, check_within, set_fusion
from proportion_ssl.pseudo_labels.label_log import LoggedLabels

#: Ends of file names that promise another format.
OTHER_FORMATS = (".pkl", ".pickle", ".joblib", ".skops", ".pt", ".pth", ".onnx", ".h5", ".npz")

_SKIPPED = ("estimator_", "_metadata_request")  # a net is saved as weights; routing is a setting


def save(
    model: BagClassifier | SignedLabelNet | MultiFieldOfViewNet | TumorProposer,
    path: str | os.PathLike[str],
) -> None:
    """Write a fitted model to one file that :func:`load` reads.

    The file is written under a temporary name and renamed once it is complete and has been read back; until
    then an existing file is unchanged.

    Parameters
    ----------
    model : classifier of this package, HeadClassifier, MobileNetV2Classifier or TumorProposer
        Fitted, such as a :class:`~proportion_ssl.NegativePseudoLabelClassifier` or a
        :class:`~proportion_ssl.RobustProportionClassifier`, with nets, selectors and losses of this package.
        A :class:`~proportion_ssl.TumorProposer` with a :class:`~proportion_ssl.MultiFieldOfViewNet` or a
        :class:`~proportion_ssl.HeadClassifier`, which can also be saved by themselves; views are
        weighed by a :class:`~proportion_ssl.nets.FixedFusion`.
    path : str or path-like
        Where to write, such as ``"lung.safetensors"``; replaced if it exists. A head on 1280 features takes
        about 50 kB plus its pseudo labels, a MobileNetV2 about 9 MB more.

    Raises
    ------
    TypeError
        If the model, or a part of it, is of a class that cannot be saved; the message names it.
    ValueError
        If a setting, a name or a weight has a type that cannot be saved; the message names it. If the name
        ends like that of another format, such as ".pkl" or ".pt".
    NotFittedError
        If the model was not fitted.

    See Also
    --------
    load : Read the file.

    Notes
    -----
    The parameters, fitted attributes and weights are saved. Not saved: state that is only needed for training
    (optimizer state, the net's history, ``bags_`` with their instances) and the device. If ``weights`` of a
    MobileNetV2 is a path, it is saved as text.

    Equal models give byte-identical files with the same version of the package.

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
    if path.suffix.lower() in OTHER_FORMATS:
        raise ValueError(
            f"{str(path)!r} ends like another format, but the file would be in the format safetensors; "
            f"name it {path.stem + '.safetensors'!r}."
        )
    data = _to_bytes(model)
    try:
        restored = _from_bytes(data)
    except ModelFileError as error:
        raise ValueError(f"The model cannot be saved: {error}") from error
    if isinstance(model, NetBagClassifier):
        check_same_net(model.estimator_, restored.estimator_)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that :func:`save` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    model : classifier of this package, HeadClassifier, MobileNetV2Classifier or TumorProposer
        Fitted model of the saved class, on the CPU. Predictions are bit-identical on the same machine with
        the same versions.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ModelFileError
        If the file is truncated, damaged, of an unknown version, or has invalid content; a ``ValueError``
        that names the file and the problem.

    See Also
    --------
    save : Write the file.

    Notes
    -----
    Reading a file never runs code from it, opens other files or uses the network. The hash detects accidental
    damage but is not a signature: a file from an unknown source loads safely, but its predictions cannot be
    trusted. The layers of a MobileNetV2 come from the file; ``fit`` of a loaded model starts from
    ``weights``, as for a new model.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> _ = path.write_bytes(b"not a model")
    >>> load(path)
    Traceback (most recent call last):
    ...
    proportion_ssl.persistence._errors.ModelFileError: ...
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"model file not found: {str(path)!r}.")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        try:
            check_start(start, size)
        except ModelFileError as error:
            if is_segmenter_file(path):
                raise ModelFileError(
                    f"{str(path)!r} is a file of SlideSegmenter.save; read it with SlideSegmenter.load."
                ) from None
            raise ModelFileError(f"{str(path)!r} cannot be loaded: {error}") from error
        data = start + file.read(size - len(start))
    try:
        return _from_bytes(data)
    except ModelFileError as error:
        raise ModelFileError(f"{str(path)!r} cannot be loaded: {error}") from error


# --- what is written ----------------------------------------------------------------------------


def _to_bytes(model: Any) -> bytes:
    tensors: dict[str, torch.Tensor] = {}
    return pack(_describe_model(model, type(model).__name__, tensors, ""), tensors)


def _describe_model(model, name, tensors, prefix):
    """Describe a fitted net or classifier; its arrays are added to the tensors, with the prefix."""
    net, more = _net_of(model), {}
    if net is not None:
        for key, value in net.module_.state_dict().items():
            tensors[f"{prefix}net.{key}"] = copy_of(value)
        more["data_shape"] = list(net.data_shape_)
    if net is model:
        fitted = {"classes_": describe_names(net.classes_, "classes_")}
    else:
        fitted = _describe_fitted(model, tensors, prefix)
    return {**describe(model, name), **more, "fitted": fitted}


def _net_of(model):
    """Fitted net of a model that can be saved; None if the model predicts without its own net."""
    if class_of(model) in NETS:
        if not model.initialized_ or not hasattr(model, "classes_inferred_"):
            raise NotFittedError(f"This {type(model).__name__} is not fitted; fit it first.")
        return model
    if type(model) not in MODELS:
        names = ", ".join(sorted(cls.__name__ for cls in (*MODELS, *NETS)))
        raise TypeError(
            f"A {type(model).__name__} cannot be saved, only {names} can. Save the inner model "
            "(search.best_estimator_, pipeline[-1]) and reapply the preprocessing, such as scaling, yourself "
            "when you predict: it is not in the file. (Features need no scaling; the head standardizes "
            "them.) Save a class of your own with joblib, and keep its code."
        )
    check_is_fitted(model)
    if not isinstance(model, NetBagClassifier):
        return None
    if class_of(model.estimator_) not in NETS:
        raise TypeError(cannot("estimator_", model.estimator_, NETS) + OWN_NET)
    return model.estimator_


def _fitted_names(model):
    """Attributes set by a fit or by the user."""
    skipped = {*_SKIPPED} - {*type(model)._kept.within}
    return sorted(set(vars(model)) - set(model.get_params(deep=False)) - skipped)


def _describe_fitted(model, tensors, prefix):
    """Describe fitted attributes as JSON; arrays and weights of inner models are added to the tensors."""
    kept = type(model)._kept
    known = _known(kept)
    if isinstance(model, MultiFieldOfViewNet):
        check_fusion(model)
    fitted: dict[str, Any] = {}
    for name in _fitted_names(model):
        value = getattr(model, name)
        if name in kept.within:
            kinds = kept.within[name]
            fitted[name] = _describe_within(value, kinds, name, tensors, f"{prefix}{name}.")
        elif name in kept.several:
            kinds = kept.several[name]
            fitted[name] = [
                _describe_within(inner, kinds, f"{name}[{i}]", tensors, f"{prefix}{name}.{i}.")
                for i, inner in enumerate(value)
            ]
        elif name in kept.modules:
            for key, weight in value.state_dict().items():
                tensors[f"{prefix}{name}.{key}"] = copy_of(weight)
        elif name == "label_log_" and isinstance(model, LoggedLabels):
            fitted[name] = describe_log(value)
            tensors.update(
                {f"{prefix}{name}.{key}": part for key, part in log_tensors(value).items()}
            )
        elif name in kept.arrays:
            tensors[f"{prefix}{name}"] = array_tensor(value, kept.arrays[name], name)
        elif name in NAMES:
            fitted[name] = describe_names(value, name)
        elif name in known:
            fitted[name] = encode(value, name)
        elif name not in kept.left_out:
            raise ValueError(
                f"The model has the attribute {name!r}, which {type(model).__name__}._kept does not list. If "
                "you set it yourself, delete it first."
            )
    return fitted


def _known(kept):
    """Plain attributes and the types of their values."""
    return {"feature_names_in_": (np.ndarray,), **kept.always, **kept.sometimes}


def _describe_within(model, kinds, name, tensors, prefix):
    """Describe a fitted inner model of one of the given kinds."""
    if not isinstance(model, kinds):
        raise TypeError(cannot(name, model, kinds) + OWN_NET)
    return _describe_model(model, name, tensors, prefix)


# --- what is read -------------------------------------------------------------------------------


def _from_bytes(data):
    """Restore the model of a file; any problem raises a ModelFileError."""
    try:
        version, described, tensors = unpack(data)
        copies = upgrade(described, tensors) if version == 1 else {}
        model = _restore(described, tensors, (*MODELS, *NETS))
        check_copies(model, copies)
        return model
    except ModelFileError:
        raise
    except Exception as error:  # a damaged file can raise any exception
        first = (str(error).splitlines() or [""])[0][:200]
        raise ModelFileError(
            f"it is damaged, or was not written by proportion_ssl.save ({type(error).__name__}: {first})."
        ) from error


def _restore(described, tensors, known):
    """Restore a fitted model of one of the known classes; its tensors are removed from `tensors`."""
    has_net = isinstance(described, dict) and "data_shape" in described
    keys = {"class", "parameters", "fitted", *(["data_shape"] if has_net else [])}
    check_table(described, keys, "the model")
    model = build({key: described[key] for key in ("class", "parameters")}, known, "model")
    if has_net != isinstance(model, NetBagClassifier | SignedLabelNet):
        raise ModelFileError(f"a {type(model).__name__} with, or without, its own net.")
    weights = _taken(tensors, "net.")
    fitted = described["fitted"]
    if type(model) in NETS:
        check_table(fitted, {"classes_"}, "the net")
        _check_used_up(tensors)
        shape = check_shape(described["data_shape"])
        return fill_net(model, weights, build_names(fitted["classes_"], "classes_"), shape)
    _set_fitted(model, fitted, tensors)
    check_feature_names(model)
    if has_net:
        net, shape = model._build_net(), check_shape(described["data_shape"])
        check_inputs(model, net, shape)
        model.estimator_ = fill_net(net, weights, model.classes_, shape)
    elif weights:
        raise ModelFileError(f"it holds the unknown weight {min(weights)[:80]!r}.")
    elif getattr(model, "is_images_", False) and not type(model)._kept.within:
        raise ModelFileError(f"a {type(model).__name__} of images, which has no net to read them.")
    return model


def _taken(tensors, prefix):
    """Remove and return the tensors with the prefix, without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _check_used_up(names):
    if names:
        raise ModelFileError(f"it holds the unknown attribute {min(names)[:80]!r}.")


def _set_fitted(model, fitted, tensors):
    """Set fitted attributes, which must be known, of the right type, and consistent."""
    kept, has_log = type(model)._kept, isinstance(model, LoggedLabels)
    known = _known(kept)
    if not isinstance(fitted, dict):
        raise ModelFileError("the fitted attributes are not a table.")
    models = {*kept.within, *kept.several}
    _check_used_up({*fitted} - {*known, *models} - ({"label_log_"} if has_log else set()))
    missing = sorted({*kept.always, *models} - set(fitted))
    if missing:
        raise ModelFileError(f"it lacks the attribute {missing[0]!r}.")
    for name, value in fitted.items():
        if name in NAMES:
            setattr(model, name, build_names(value, name))
        elif name in known:
            setattr(model, name, _of_kind(decode(value), known[name], name))
    if not all(type(entry) is dict for entry in getattr(model, "history_", [])):
        raise ModelFileError("history_ is not a list of tables.")
    if hasattr(model, "classes_"):
        check_classes(model.classes_, at_least=2)
    for name, array in kept.arrays.items():
        if array.always or name in tensors:
            setattr(model, name, built_array(tensors.pop(name, None), array, name, _sides(model)))
    logged = _taken(tensors, "label_log_.") if has_log else {}
    if logged or "label_log_" in fitted:
        model.label_log_ = build_log(fitted.get("label_log_"), logged, model.classes_)
    for name, kinds in kept.within.items():
        inner = _restore_within(model, name, fitted[name], _taken(tensors, f"{name}."), kinds)
        setattr(model, name, inner)
    for name, method in kept.modules.items():
        with seeded(0):
            module = getattr(model, method)()
        setattr(model, name, fill_module(module, _taken(tensors, f"{name}.")))
    for name, kinds in kept.several.items():
        several = _restore_several(model, name, fitted[name], _taken(tensors, f"{name}."), kinds)
        setattr(model, name, several)
    _check_used_up(tensors)
    if isinstance(model, MultiFieldOfViewNet):
        set_fusion(model)


def _restore_within(model, name, described, tensors, kinds):
    """Restore a fitted inner model, checked against the outer model."""
    known = tuple(cls for cls in (*MODELS, *NETS) if issubclass(cls, kinds))
    inner = _restore(described, tensors, known)
    check_within(inner, model, name)
    return inner


def _restore_several(model, name, described, tensors, kinds):
    if not isinstance(described, list):
        raise ModelFileError(f"{name} is not a list.")
    inner = [
        _restore_within(model, name, one, _taken(tensors, f"{i}."), kinds)
        for i, one in enumerate(described)
    ]
    _check_used_up({f"{name}.{rest}" for rest in tensors})
    return inner


def _sides(model):
    """Lengths of the axes of arrays of a linear classifier."""
    n_classes = len(model.classes_)
    return {
        "classes": n_classes,
        "machines": 1 if n_classes == 2 else n_classes,
        "features": model.n_features_in_,
    }


def _of_kind(value, kinds, name):
    if type(value) not in kinds:
        raise ModelFileError(f"{name} is a {type(value).__name__}.")
    return value
