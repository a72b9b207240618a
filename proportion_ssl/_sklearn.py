"""The only module that imports private names of scikit-learn, so that changes are handled in one place."""

import importlib
from collections.abc import Sequence
from typing import Any

from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import _check_n_features as check_n_features
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "RealNotInt",
    "StrOptions",
    "check_n_features",
    "check_sample_weight",
    "fit_context",
    "validate_parameter_constraints",
    "visual_block",
]

_HTML_MODULES = ("sklearn.utils._repr_html.estimator", "sklearn.utils._estimator_html_repr")


def visual_block(
    kind: str, estimators: Any, *, names: str | Sequence[str], name_details: str | Sequence[str]
) -> Any:
    """Create the blocks of the HTML diagram of an estimator in notebooks.

    Parameters
    ----------
    kind : {"single", "serial", "parallel"}
    estimators : estimator, or list of estimators
    names, name_details : str, or list of str
        Titles, and the details shown when a block is expanded.

    Returns
    -------
    block : object
        Return value for ``_sk_visual_block_``.

    Raises
    ------
    ImportError
        If the class is not at its known locations in this version of scikit-learn; scikit-learn then draws
        the estimator without its parts.
    """
    for module in _HTML_MODULES:
        try:
            block = importlib.import_module(module)._VisualBlock
        except (ImportError, AttributeError):
            continue
        return block(kind, estimators, names=names, name_details=name_details)
    raise ImportError(f"scikit-learn has no _VisualBlock in {' or '.join(_HTML_MODULES)}.")
