"""Declarations of the fitted attributes that a model file stores, as class attributes of the models."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

Kinds = Mapping[str, tuple[type, ...]]


@dataclass(frozen=True)
class Array:
    """An array of numbers.

    Parameters
    ----------
    dtype : str
    sides : tuple of str or None
        Length along each axis: "classes", "features", "machines" (number of classes, but 1 for two classes),
        or None for any.
    always : bool, default=True
        Whether the array is required in a file.
    finite : bool, default=True
        Whether all numbers must be finite.
    """

    dtype: str
    sides: tuple[str | None, ...]
    always: bool = True
    finite: bool = True


@dataclass(frozen=True)
class Kept:
    """Fitted attributes that a model file stores, each with the allowed types of its value.

    The net, the log of pseudo labels and ``feature_names_in_`` are handled separately. Types: bool, int,
    float, str, NoneType, lists and dicts of these, a one-dimensional ndarray of names, and a DataFrame of
    booleans, numbers or strings.

    Parameters
    ----------
    always : mapping from name to tuple of types
        Required attributes.
    sometimes : mapping from name to tuple of types
        Optional attributes.
    arrays : mapping from name to Array
        Arrays of numbers.
    within : mapping from name to tuple of types
        Required fitted models, of classes that can be saved.
    several : mapping from name to tuple of types
        Required lists of fitted models.
    modules : mapping from name to str
        Required torch modules whose weights are stored, each with the method of the model that builds it
        anew from parameters and other fitted attributes.
    left_out : mapping from name to str
        Attributes that are not stored, with the reason, such as training data.

    Examples
    --------
    >>> kept = Kept(always={"n_iter_": (int,)}).extended(sometimes={"trust_": (float,)})
    >>> sorted({**kept.always, **kept.sometimes})
    ['n_iter_', 'trust_']
    """

    always: Kinds = field(default_factory=dict)
    sometimes: Kinds = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    within: Kinds = field(default_factory=dict)
    several: Kinds = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def extended(self, **more: Mapping[str, Any]) -> "Kept":
        """Return a copy with additional attributes."""
        unknown = set(more) - {f.name for f in fields(self)}
        if unknown:
            raise TypeError(f"Kept has no field {min(unknown)!r}.")
        return Kept(
            **{f.name: {**getattr(self, f.name), **more.get(f.name, {})} for f in fields(self)}
        )
