"""Save the pseudo labels of a fitted classifier as their log, from which the rest follows."""

from typing import Any

import numpy as np
import torch

from proportion_ssl.persistence._errors import ModelFileError
from proportion_ssl.persistence._tables import LOG
from proportion_ssl.persistence._values import build_names, check_table, describe_names
from proportion_ssl.pseudo_labels.label_log import RULES, LabelLog


def describe_log(log: LabelLog) -> dict[str, Any]:
    """Description of a log, without its tensors."""
    return {"bag_names": describe_names(log.bag_names, "bag_names_")}


def log_tensors(log: LabelLog) -> dict[str, torch.Tensor]:
    """Bag of each instance, the concatenated changes of all rounds, and the number of changes per round."""
    changes = log.changes
    cells = [np.asarray(cells, dtype=np.int64) for cells, _ in changes]
    rules = [np.asarray(rules, dtype=np.int8) for _, rules in changes]
    return {
        "bag_index": torch.from_numpy(np.array(log.bag_index, dtype=np.int64)),
        "cells": torch.from_numpy(np.concatenate([np.empty(0, np.int64), *cells])),
        "rules": torch.from_numpy(np.concatenate([np.empty(0, np.int8), *rules])),
        "lengths": torch.tensor([len(part) for part in cells], dtype=torch.int64),
    }


def build_log(described: Any, tensors: dict[str, torch.Tensor], classes: np.ndarray) -> LabelLog:
    """Build a log, checked against bags and classes."""
    if described is None or {name: tensor.dtype for name, tensor in tensors.items()} != LOG:
        raise ModelFileError("its log of pseudo labels is incomplete or of another type.")
    check_table(described, {"bag_names"}, "the log of pseudo labels")
    names = build_names(described["bag_names"], "bag_names_")
    index, cells, rules, lengths = (tensors[name].numpy() for name in LOG)
    if index.ndim != 1 or (len(index) and not 0 <= index.min() <= index.max() < len(names)):
        raise ModelFileError("its pseudo labels refer to bags that it does not have.")
    n_cells = len(index) * len(classes)
    fits = cells.shape == rules.shape == (len(cells),) and lengths.ndim == 1
    wrong = (
        *(not fits, (lengths < 0).any(), (lengths > len(cells)).any()),
        *(sum(lengths.tolist()) != len(cells), (cells < 0).any(), (cells >= n_cells).any()),
        *((rules < 0).any(), (rules >= len(RULES)).any()),
    )
    if any(wrong):
        raise ModelFileError("its log of pseudo labels does not fit its bags and classes.")
    ends = np.cumsum(lengths)
    changes = [
        (cells[end - n : end], rules[end - n : end]) for end, n in zip(ends, lengths, strict=True)
    ]
    return LabelLog.from_changes(index, names, classes, changes)
