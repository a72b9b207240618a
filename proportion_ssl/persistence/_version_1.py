"""Upgrade files of version 1, written by proportion_ssl 0.1, to version 2."""

from typing import Any

import torch

from proportion_ssl.losses import _renamed
from proportion_ssl.persistence._errors import ModelFileError

#: Labels that follow from the log but were also written.
COPIES = ("signed_labels_", "label_rounds_")


def upgrade(described: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Change description and tensors in place; return the copies of labels, which must match the log."""
    _rename_losses(described)
    fitted = described.get("fitted") if isinstance(described, dict) else None
    if not isinstance(fitted, dict):
        return {}
    if "bag_names_" in fitted:
        fitted["label_log_"] = {"bag_names": fitted.pop("bag_names_")}
    if "bag_index_" in tensors:
        tensors["label_log_.bag_index"] = tensors.pop("bag_index_")
    return {name: tensors.pop(name) for name in COPIES if name in tensors}


def check_copies(model: Any, copies: dict[str, torch.Tensor]) -> None:
    """Raise unless labels that were written twice are equal."""
    for name, tensor in copies.items():
        held = getattr(model, name, None)
        if held is None or held.shape != tensor.shape or (held != tensor.numpy()).any():
            raise ModelFileError(
                f"its {name} and its log of pseudo labels contradict each other. Fit the model again and "
                "save it with this version."
            )


def _rename_losses(value):
    """Replace former loss classes by settings of NegativeLoss."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        _rename_losses(item)
    name = value.get("class") if isinstance(value, dict) else None
    if isinstance(name, str) and name in _renamed.FORMER and value.get("parameters") == {}:
        function = _renamed.FORMER[name].__name__
        value.update({"class": "NegativeLoss", "parameters": {"loss": {"$function": function}}})
