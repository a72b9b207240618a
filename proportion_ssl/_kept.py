"""What a model file keeps of a fitted model; each class says so beside its ``fit``."""

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
        Length along each axis: "classes", "features", "machines" (the classes, but one where there are two),
        or None for any.
    always : bool, default=True
        Whether a file without it is refused.
    finite : bool, default=True
        Whether all numbers must be finite.
    """

    dtype: str
    sides: tuple[str | None, ...]
    always: bool = True
    finite: bool = True


@dataclass(frozen=True)
class Kept:
    """Fitted attributes that a model file keeps, each with the types that its value may have.

    The net, the log of pseudo labels and ``feature_names_in_`` need no mention. Types: bool, int, float, str,
    NoneType, lists and dicts of these, a one-dimensional ndarray of names, and a DataFrame of booleans,
    numbers or strings.

    Parameters
    ----------
    always : mapping from name to tuple of types
        A file without one of these is refused.
    sometimes : mapping from name to tuple of types
    arrays : mapping from name to Array
        Arrays of numbers.
    within : mapping from name to tuple of types
        One fitted model each, of a class that can itself be saved; always there.
    several : mapping from name to tuple of types
        A list of fitted models each; always there.
    left_out : mapping from name to str
        What is not kept, and why, such as training data.

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
    left_out: Mapping[str, str] = field(default_factory=dict)

    def extended(self, **more: Mapping[str, Any]) -> "Kept":
        """What a base class keeps, and more."""
        unknown = set(more) - {f.name for f in fields(self)}
        if unknown:
            raise TypeError(f"Kept has no field {min(unknown)!r}.")
        return Kept(
            **{f.name: {**getattr(self, f.name), **more.get(f.name, {})} for f in fields(self)}
        )
