"""A function of every bag, here or in other processes: in order, and again where a worker was lost."""

import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

import numpy as np
from sklearn.utils.parallel import Parallel, delayed

#: How often bags are begun anew after a worker process ended.
MOST_LOSSES = 3


def map_bags(
    function: Callable[..., Any],
    names: np.ndarray,
    arguments: Callable[[int], tuple],
    n_jobs: int | None,
) -> Iterator[Any]:
    """Results of a function of every bag, in the order of the bags.

    Parameters
    ----------
    function : callable
        Picklable, and so are its arguments and results.
    names : ndarray of shape (n_bags,)
        For messages.
    arguments : callable
        From the position of a bag to the arguments of its call; called when its turn comes.
    n_jobs : int or None
        As in joblib, whose backend is used (``joblib.parallel_config``).

    Yields
    ------
    result : object

    Raises
    ------
    RuntimeError
        Naming the bag, if the function raised; or the bags that were in work, if worker processes ended again
        and again. A single loss costs the bags that were in work: they are done anew.
    """
    n_done, n_losses = 0, 0
    while n_done < len(names):
        # batches of several bags would lose them all
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
                    f"{names.tolist()[n_done]!r} or one of those that follow, perhaps for want of "
                    "memory; use fewer n_jobs."
                ) from error


def _attempt(function, *arguments):
    """Result and no failure, or the reverse as text: errors do not always survive the way to here."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"


def _worker_ended(error):
    """Whether a pool lost a process, or Dask gave up a task whose workers ended one after the other."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"
