"""Conversion of labels to class indices, block by block, and checks of label vectors."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Positions are encoded and counted in blocks, so that memory does not grow with the map and the
# intermediate results of a block stay in the processor cache.
_BLOCK = 2**17


# Integer labels this close together are looked up in a table; others are compared one by one.
TABLE_SPAN = 2**16


SHOWN = 5


NOTHING_LEFT = (
    "Nothing to score: no position is left (all are ignored or have no weight, or none was given); "
    "check ignore_label and that the labels are not empty."
)


def blocks(size: int, at_least: int = 0) -> Iterator[slice]:
    length = max(_BLOCK, at_least)
    return (slice(start, start + length) for start in range(0, size, length))


def encoded_blocks(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    labels: np.ndarray,
    ignored: np.ndarray,
    at_least: int = 0,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Class indices of true and predicted labels, block by block of the flattened arrays.

    Ignored true labels have the index n_classes, and so may predictions at these positions. Any other
    label that is not among the classes raises an error.
    """
    n_classes = len(labels)
    known = np.concatenate([labels, ignored]) if len(ignored) else labels
    y_true, y_pred = y_true.reshape(-1), y_pred.reshape(-1)
    for block in blocks(y_true.size, at_least):
        true = encode(y_true[block], known)
        refuse_unknown(y_true[block], true == len(known), "y_true", labels, ignored)
        np.minimum(true, n_classes, out=true)
        predicted = encode(y_pred[block], labels)
        unknown = predicted == n_classes
        if len(ignored):
            unknown &= true < n_classes
        refuse_unknown(y_pred[block], unknown, "y_pred", labels, ignored)
        yield block, true, predicted


def encode(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Index of each value in labels; ``len(labels)`` for other values, including NaN."""
    n_labels = len(labels)
    if n_labels and labels.dtype.kind == "i" and values.dtype.kind in "iub":
        lowest, highest = int(labels.min()), int(labels.max())
        fits = values.dtype.kind != "u" or values.dtype.itemsize < 8
        if fits and highest - lowest < TABLE_SPAN and lowest > -(2**62):
            # One extra entry at either end for values outside the range.
            table = np.full(highest - lowest + 3, n_labels, dtype=np.intp)
            table[labels - lowest + 1] = np.arange(n_labels)
            return table.take(values.astype(np.int64) - (lowest - 1), mode="clip")
    codes = np.full(values.shape, n_labels, dtype=np.intp)
    for code, label in enumerate(labels.tolist()):
        codes[values == label] = code
    return codes


def resolve_labels(
    y_true: np.ndarray, y_pred: np.ndarray, labels: ArrayLike | None, ignore_label
) -> tuple[np.ndarray, np.ndarray]:
    """Checked labels and ignored labels; without ``labels``, the sorted labels that occur."""
    if labels is not None:
        labels = check_labels(labels, "labels")
        return labels, check_ignored(ignore_label, labels)
    ignored = check_ignored(ignore_label, None)
    found = set()
    flat_true, flat_pred = y_true.reshape(-1), y_pred.reshape(-1)
    for block in blocks(y_true.size):
        true, predicted = flat_true[block], flat_pred[block]
        if len(ignored):
            keep = encode(true, ignored) == len(ignored)
            true, predicted = true[keep], predicted[keep]
        for name, values in (("y_true", true), ("y_pred", predicted)):
            present = distinct(values)
            if any(value != value for value in present):
                raise ValueError(missing_message(name))
            found |= present
    if not found:
        raise ValueError(NOTHING_LEFT)
    # An ignored label predicted at a counted position is not a class; it raises an error later.
    found -= set(ignored.tolist())
    labels = np.sort(check_labels(list(found), "the labels of y_true and y_pred"))
    return labels, check_ignored(ignored if len(ignored) else None, labels)


def distinct(values: np.ndarray) -> set:
    if values.size and values.dtype.kind in "iub":
        lowest, highest = int(values.min()), int(values.max())
        if highest - lowest < TABLE_SPAN and highest < 2**62:
            counts = np.bincount(values.astype(np.int64) - lowest)
            return {lowest + step for step in np.flatnonzero(counts).tolist()}
    if values.dtype.kind in "UO":  # faster than sorting strings
        return set(values.tolist())
    return set(np.unique(values).tolist())


def as_array(values: ArrayLike, name: str) -> np.ndarray:
    """Convert the values to an array of integers, floats, strings or comparable objects."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "U" and not hasattr(values, "dtype"):
            # Mixed lists would silently become strings, NaN included.
            array = np.asarray(values, dtype=object)
    except ValueError as error:
        raise ValueError(
            f"{name} is not one array: {error}. For several maps of different size, update one "
            f"SegmentationConfusion map by map."
        ) from error
    if array.dtype.kind == "T":
        array = array.astype(object)
    if array.dtype.kind not in "iubfUO":
        raise TypeError(f"{name} must hold whole numbers or strings, got dtype {array.dtype}.")
    if array.dtype.kind == "O":
        _check_comparable(array, name)
    return array


def _check_comparable(array: np.ndarray, name: str) -> None:
    try:
        array == array  # noqa: B015 - pandas.NA cannot be compared, unlike NaN and None
    except TypeError as error:
        raise ValueError(missing_message(name)) from error


def check_pair(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = as_array(y_true, "y_true"), as_array(y_pred, "y_pred")
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"y_true has shape {y_true.shape} and y_pred {y_pred.shape}; give one label per "
            f"position in both (for probabilities, the argmax class)."
        )
    return y_true, y_pred


def check_weight(sample_weight: ArrayLike, y_true: np.ndarray) -> np.ndarray:
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != y_true.shape:
        raise ValueError(
            f"sample_weight has shape {weight.shape} and y_true {y_true.shape}; give one weight "
            f"per position."
        )
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError("sample_weight must be finite and not negative.")
    return weight.reshape(-1)


def check_labels(labels: ArrayLike, name: str) -> np.ndarray:
    """Distinct labels as an int64 or a string array of shape (n_labels,)."""
    if isinstance(labels, str) or not isinstance(labels, Iterable) or np.ndim(labels) == 0:
        raise TypeError(f"{name} must be a sequence of classes, got {labels!r}.")
    listed: list[Any] = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if not listed:
        raise ValueError(f"{name} is empty; give at least one class.")
    if all(isinstance(label, str) for label in listed):
        checked = np.array(listed, dtype=str)
    elif all(is_whole_number(label) for label in listed):
        listed = [int(label) for label in listed]
        if not all(-(2**63) <= label < 2**63 for label in listed):
            raise ValueError(f"{name} holds {shown(listed)}, beyond 64-bit integers.")
        checked = np.array(listed, dtype=np.int64)
    else:
        raise TypeError(
            f"{name} must be all strings or all whole numbers, got "
            f"{shown(sorted(listed, key=repr))}; use one kind throughout."
        )
    if len(set(checked.tolist())) < len(checked):
        raise ValueError(
            f"{name} holds a class more than once: {checked.tolist()}; list each once."
        )
    return checked


def is_whole_number(label) -> bool:
    if isinstance(label, int | np.integer | np.bool_):
        return True
    return isinstance(label, float | np.floating) and float(label).is_integer()


def check_ignored(ignore_label, labels: np.ndarray | None) -> np.ndarray:
    """Ignored labels as an array of the same kind as labels, shape (n_ignored,)."""
    if ignore_label is None:
        return np.array([], dtype=np.int64 if labels is None else labels.dtype)
    if isinstance(ignore_label, str) or np.ndim(ignore_label) == 0:
        ignore_label = [ignore_label]
    if len(ignore_label) == 0:
        return check_ignored(None, labels)
    ignored = check_labels(ignore_label, "ignore_label")
    if labels is None:
        return ignored
    if ignored.dtype.kind != labels.dtype.kind:
        raise TypeError(
            f"ignore_label {ignored.tolist()} and labels {shown(labels.tolist())} are of "
            f"different types; use strings for both, or whole numbers for both."
        )
    both = sorted(set(ignored.tolist()) & set(labels.tolist()))
    if both:
        raise ValueError(
            f"{both} are in both labels and ignore_label; an ignored label is not a class, "
            f"remove it from labels."
        )
    return ignored


def refuse_unknown(values, unknown, name, labels, ignored) -> None:
    if not unknown.any():
        return
    strays = values[unknown]
    if strays.dtype.kind in "fO" and (strays != strays).any():
        raise ValueError(missing_message(name))
    distinct = list(dict.fromkeys(strays[: 2**16].tolist()))
    allowed = f"labels {shown(labels.tolist())}"
    if len(ignored):
        allowed += f" (ignored in y_true: {shown(ignored.tolist())})"
    raise ValueError(
        f"{name} holds {shown(distinct)} at {int(unknown.sum())} positions, not among the "
        f"{allowed}; add the class to labels, or give these positions a separate label in y_true and "
        f"pass it as ignore_label."
    )


def missing_message(name: str) -> str:
    return (
        f"{name} holds NaN or missing labels; to leave positions out, give them a separate label in "
        f"y_true and pass it as ignore_label."
    )


def shown(items: Sequence) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"[{', '.join(map(repr, items[:SHOWN]))}]{more}"
