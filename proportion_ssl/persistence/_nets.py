"""Rebuild fitted nets from their parameters and the weights of the file."""

import torch

from proportion_ssl.embedding.mobilenet import N_FEATURES
from proportion_ssl.nets.classifiers import HeadClassifier
from proportion_ssl.nets.random_numbers import seeded
from proportion_ssl.persistence._errors import ModelFileError
from proportion_ssl.persistence._restored import RestoredMobileNetV2
from proportion_ssl.persistence._values import check_net, same


def copy_of(tensor):
    return tensor.detach().to("cpu", copy=True).contiguous()


def check_same_net(net, restored):
    """Raise unless the parameters still describe the fitted net."""
    for what in ("freeze", "predict_nonlinearity", "module"):
        fitted, described = getattr(net, what, None), getattr(restored, what, None)
        if not same(fitted, described):
            raise ValueError(
                f"The model cannot be saved: its net was fitted with {what}={fitted!r}, but its parameters "
                f"are now {described!r}. Restore them, or fit again."
            )


def check_classes(classes, *, at_least):
    if len(classes) < at_least or len(set(classes.tolist())) != len(classes):
        raise ModelFileError(f"it has {len(classes)} classes, or one of them twice.")


def check_shape(shape):
    if not isinstance(shape, list) or len(shape) not in (1, 3):
        raise ModelFileError("the shape of its data is invalid.")
    if not all(type(side) is int and 0 < side < 2**31 for side in shape):
        raise ModelFileError("the shape of its data is invalid.")
    return tuple(shape)


def check_inputs(model, net, shape):
    """Raise unless number and names of the features match the net."""
    is_head, is_images = isinstance(net, HeadClassifier), model.is_images_
    inputs = (model.n_features_in_,) if is_head else (N_FEATURES,)
    n_features = 3 if is_images else inputs[0]
    is_raw = is_images and len(shape) == 3 and shape[2] == 3  # raw images
    if (is_head and is_images) or model.n_features_in_ != n_features:
        raise ModelFileError("its number of features does not fit its net.")
    if not (is_raw and not net.freeze if len(shape) == 3 else shape == inputs):
        raise ModelFileError(f"its data of shape {shape} do not fit its net.")


def check_feature_names(model):
    """Raise unless the number of feature names, if any, is that of the features."""
    names = getattr(model, "feature_names_in_", None)
    if names is not None and (len(names) != model.n_features_in_ or names.dtype != object):
        raise ModelFileError("its names of features do not fit their number.")


def fill_net(net, weights, classes, shape):
    """Load the weights of the file into the net, checked by size and type."""
    check_classes(classes, at_least=1)
    check_net(net)  # the classifier may have set some of its parameters
    is_head = isinstance(net, HeadClassifier)
    n_features = shape[0] if is_head else N_FEATURES
    if len(classes) * n_features > sum(weight.numel() for weight in weights.values()):
        # checked before a net larger than the file is built
        raise ModelFileError(f"its weights are too few for {len(classes)} classes.")
    origin = None
    if not is_head:
        origin = net.weights
        parameters = net.get_params(deep=False)
        net = RestoredMobileNetV2(**{k: v for k, v in parameters.items() if k[0] != "_"})
        net.weights = None  # the layers come from this file, not from `weights`
    net.classes_inferred_, net.data_shape_ = classes, shape
    with seeded(0):
        net.initialize()
    _load_state(net.module_, weights)
    if not is_head:
        net.weights = origin
        net.module_._batch_statistics = not net.freeze and origin is None
    net.module_.eval()
    return net


def fill_module(module, weights):
    """Load the weights of the file into a module that was built for them."""
    _load_state(module, weights)
    return module.eval()


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
