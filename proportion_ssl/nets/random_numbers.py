"""Where a fit draws its random numbers, so that fits in threads neither see nor disturb each other.

Torch's own generator belongs to the whole process. What is random in this package (first weights, dropout,
order of batches, noise) draws from :func:`generator` instead, which belongs to one fit in one thread. Parts
from elsewhere (modules, losses, callbacks) know only torch's generator: fits that use such parts wait for
each other, and leave that generator as it was.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from skorch import NeuralNet
from torch.utils.data import DataLoader

#: Packages whose code draws from :func:`generator`, or not from torch at all.
KNOWN = ("proportion_ssl", "builtins", "numpy", "scipy", "pandas", "sklearn")

#: Held by a fit that seeds torch's own generator. A fit within a fit may take it again.
_PROCESS_GENERATOR = threading.RLock()

_of_thread = threading.local()


def generator() -> torch.Generator | None:
    """The generator that this thread draws from; None: torch's own."""
    return getattr(_of_thread, "generator", None)


@contextmanager
def seeded(seed: int, *, local: bool = True, device: Any = "cpu") -> Iterator[None]:
    """Within the block :func:`generator` is a new one; torch's own is afterwards as it was before.

    Parameters
    ----------
    seed : int
    local : bool, default=True
        False: torch's own generators are seeded instead, for parts that know no other. One block at a time in
        the process; threads that draw from torch's generator outside of such blocks are not held back.
    device : str or torch.device, default="cpu"
        With ``local=False``, where else numbers are drawn.

    Examples
    --------
    >>> with seeded(0):
    ...     one = torch.rand(2, generator=generator())
    >>> with seeded(0, local=False):
    ...     generator() is None and torch.equal(torch.rand(2), one)
    True
    """
    before = generator()
    try:
        if local:
            _of_thread.generator = torch.Generator().manual_seed(seed)
            yield
            return
        kind = torch.device(device).type
        others: Any = [] if kind == "cpu" else range(torch.get_device_module(kind).device_count())
        fork = torch.random.fork_rng(others, device_type="cuda" if kind == "cpu" else kind)
        with _PROCESS_GENERATOR, fork:
            _of_thread.generator = None
            (torch.default_generator if kind == "cpu" else torch).manual_seed(seed)
            yield
    finally:
        _of_thread.generator = before


class QuietLoader(DataLoader):
    """Batches in order; torch's own class takes a number from its generator each time, for nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"generator": torch.Generator(), **kwargs})


def draws_locally(*parts: Any) -> bool:
    """Whether all that is random in these parts draws from :func:`generator`.

    Parameters
    ----------
    *parts : nets, estimators, selectors, losses or other parameters of a fit

    Examples
    --------
    >>> from proportion_ssl import HeadClassifier
    >>> draws_locally(HeadClassifier()), draws_locally(HeadClassifier(module=torch.nn.Linear))
    (True, False)
    """
    return all(_draws_locally(part) for part in parts)


def _draws_locally(part):
    if isinstance(part, NeuralNet):
        settings = part.get_params(deep=False).items()
        losses = (value for name, value in settings if name.startswith("criterion__"))
        return (
            all(_is_known(each) for each in (part, part.module, part.criterion, *losses))
            and part.iterator_train is DataLoader
            and part.optimizer.__module__.startswith("torch.optim.")
            and not part.callbacks
            and torch.device(part.device).type == "cpu"
        )
    if isinstance(part, list | tuple):
        return draws_locally(*part)
    if hasattr(part, "get_params") and not isinstance(part, type):
        return _is_known(part) and draws_locally(*part.get_params(deep=False).values())
    return _is_known(part)


def _is_known(part):
    """Whether the code of a part is of this package, or of one that never draws from torch's generator."""
    kind = part if hasattr(part, "__qualname__") else type(part)
    functions = filter(callable, vars(part).values()) if isinstance(part, torch.nn.Module) else ()
    return kind.__module__.split(".")[0] in KNOWN and all(map(_is_known, functions))
