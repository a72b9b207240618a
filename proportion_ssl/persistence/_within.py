"""Check an inner model against its outer model."""

import numpy as np
from sklearn.base import clone

from proportion_ssl.estimators.tumor_proposer import TumorProposer
from proportion_ssl.nets.classifiers import SignedLabelNet
from proportion_ssl.nets.field_of_view import FixedFusion, MultiFieldOfViewNet
from proportion_ssl.persistence._errors import ModelFileError


def check_within(inner, model, name):
    """Raise unless an inner model has the features and classes of its outer model."""
    if isinstance(model, MultiFieldOfViewNet):
        classes = np.arange(len(model.classes_))  # experts learn positions in classes_
        same = inner.data_shape_ == (model.n_features_in_ / model.n_views,)
    else:
        of_tissue = isinstance(model, TumorProposer)
        classes = np.array([False, True]) if of_tissue else model.classes_
        same = _shape(inner) == (model.n_features_in_,)
    if (
        not same
        or inner.classes_.dtype != classes.dtype
        or inner.classes_.tolist() != classes.tolist()
    ):
        raise ModelFileError(f"{name} has other classes or features than the outer model.")
    if hasattr(inner, "feature_names_in_"):
        raise ModelFileError(f"{name} has names of features, which only the outer model may have.")


def _shape(model):
    """Shape of one instance."""
    is_net = isinstance(model, SignedLabelNet)
    return model.data_shape_ if is_net else (model.n_features_in_,)


def check_fusion(net):
    """Raise unless the fusion of a multi-view net can be rebuilt from its parameters."""
    if type(net.fusion_) is not FixedFusion:
        raise TypeError(
            f"fusion_ is a {type(net.fusion_).__name__}, which cannot be saved; only FixedFusion can. Fit "
            "the net with fusion=None, or save it with joblib."
        )
    if not np.array_equal(_fusion_of(net).weights_, net.fusion_.weights_):
        raise ValueError(
            f"The model cannot be saved: its views were weighted by {net.fusion_.weights_.tolist()}, but its "
            "parameters have changed since. Restore them, or fit again."
        )


def set_fusion(net):
    """Set the weights of the views from the parameters."""
    if len(net.experts_) != net.n_views:
        raise ModelFileError(f"it has {len(net.experts_)} experts for {net.n_views} views.")
    net.fusion_ = _fusion_of(net)


def _fusion_of(net):
    fusion = FixedFusion() if net.fusion is None else clone(net.fusion)
    return fusion.fit(np.empty((0, net.n_views, 0)), None, None)
