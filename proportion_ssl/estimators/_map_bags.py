"""Apply a function to every bag, in this or other processes, in order, with retries after lost workers."""

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

import numpy as np
from sklearn.utils.parallel import Parallel, delayed

#: Number of lost worker processes after which the map fails.
MOST_LOSSES = 3


def map_bags(
    function: Callable[..., Any],
    names: np.ndarray,
    arguments: Callable[[int], tuple],
    n_jobs: int | None,
) -> Iterator[Any]:
    """Apply a function to every bag and yield the results in the order of the bags.

    Parameters
    ----------
    function : callable
        Must be picklable, like its arguments and results.
    names : ndarray of shape (n_bags,)
        Bag names for messages.
    arguments : callable
        Maps the position of a bag to the arguments of its call; evaluated lazily.
    n_jobs : int or None
        As in joblib; the backend is that of ``joblib.parallel_config``.

    Yields
    ------
    result : object

    Raises
    ------
    RuntimeError
        If the function raised (the message names the bag), or if worker processes ended repeatedly. After a
        single loss, only the bags in progress are repeated.
    """
    n_done, n_losses = 0, 0
    while n_done < len(names):
        # one bag per batch, so that a lost worker loses one bag only
        parallel = Parallel(n_jobs=n_jobs, return_as="generator", batch_size=1)
        tasks = (delayed(_attempt)(function, *arguments(bag)) for bag in range(n_done, len(names)))
        try:
            for result, failure in parallel(tasks):
                if failure is not None:
                    raise RuntimeError(f"Bag {names.tolist()[n_done]!r} failed: {failure}")
                yield result
                n_done += 1
        except Exception as error:
            if not _worker_ended(error):
                raise
            n_losses += 1
            if n_losses == MOST_LOSSES:
                raise RuntimeError(
                    f"Worker processes ended {n_losses} times, the last time at bag "
                    f"{names.tolist()[n_done]!r} or one of the following, possibly for lack of memory; "
                    "use fewer n_jobs."
                ) from error


def _attempt(function, *arguments):
    """Return the result and None, or None and the error as text, since not all errors can be pickled."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"


def _worker_ended(error):
    """Whether a pool lost a process, or Dask gave up a task after its workers ended repeatedly."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
