"""Pseudo labels of a fitted classifier, and their log."""

import numpy as np
import torch

from proportion_ssl.persistence._errors import ModelFileError
from proportion_ssl.persistence._tables import LABELS, LOG
from proportion_ssl.pseudo_labels.label_log import RULES, LabelLog


def label_tensors(model):
    """Pseudo labels and their log, of a classifier that has such."""
    tensors = {
        name: torch.from_numpy(np.array(getattr(model, name), dtype=dtype, order="C"))
        for name, dtype in LABELS.items()
        if hasattr(model, name)
    }
    return {**tensors, **(_log_tensors(model.label_log_) if hasattr(model, "label_log_") else {})}


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


def set_labels(model, labels, logged):
    """Set the pseudo labels, check them against bags and classes, and rebuild their log."""
    for name, tensor in labels.items():
        array = tensor.numpy()
        if array.dtype != LABELS[name]:
            raise ModelFileError(f"{name} is of type {array.dtype} instead of {LABELS[name]}.")
        setattr(model, name, array)
    given = [hasattr(model, name) for name in (*LABELS, "bag_names_")]
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
    if {key: tensor.dtype for key, tensor in logged.items()} != LOG:
        raise ModelFileError("its log of pseudo labels is incomplete or of another type.")
    cells, rules, lengths = (logged[key].numpy() for key in LOG)
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
