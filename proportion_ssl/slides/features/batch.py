"""Process many slides; a slide that fails is reported and does not stop the others."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from proportion_ssl.slides.features.names import check_names

__all__ = ["CohortError", "CohortRun", "SlideFailure", "process_slides"]

logger = logging.getLogger(__name__)

SHOWN_FAILURES = 20
"""Number of failures listed in the message of a :class:`CohortError`."""


@dataclass(frozen=True)
class SlideFailure:
    """Why one slide has no result.

    Attributes
    ----------
    slide : str
        Name of the slide.
    error : str
        Class of the error, such as ``"SlideError"``.
    reason : str
        Its message.
    traceback : str
        Traceback as text, because errors of other libraries cannot always be passed between processes.
    """

    slide: str
    error: str
    reason: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.slide}: {self.error}: {self.reason}"


@dataclass(frozen=True)
class CohortRun:
    """Results and failures of a cohort.

    Attributes
    ----------
    results : dict
        Return value of the function for each slide that succeeded, by name and in the given order.
    failures : dict of str to SlideFailure
        Slides that failed, by name and in the given order.
    """

    results: dict[str, Any]
    failures: dict[str, SlideFailure]

    def __repr__(self) -> str:
        return f"CohortRun({len(self.results)} results, {len(self.failures)} failures)"

    def check(self, on_error: str) -> None:
        """Raise :class:`CohortError` if slides failed and `on_error` is "raise"."""
        if self.failures and on_error == "raise":
            raise CohortError(_message(self), self)


class CohortError(RuntimeError):
    """Some slides of a cohort failed; raised after the others are done.

    Attributes
    ----------
    run : CohortRun
        The results of the slides that succeeded, and the failures.
    """

    def __init__(self, message: str, run: CohortRun):
        super().__init__(message)
        self.run = run

    def __reduce__(self):
        return type(self), (str(self), self.run)


def process_slides(
    slides: Iterable[str | PathLike[str]] | Mapping[str, Any],
    function: Callable[[Any], Any],
    *,
    on_error: str = "raise",
    n_jobs: int | None = None,
    verbose: bool = False,
) -> CohortRun:
    """Apply a function to every slide; failures are recorded and do not stop the others.

    Parameters
    ----------
    slides : iterable of path-like, or mapping of str to object
        Slide files, named by their file name without its last suffix; or a mapping from names to the input of
        the function (a path, a row of a manifest).
    function : callable
        Called with one path, or one value of the mapping. It opens the slide itself, with
        :func:`~proportion_ssl.slides.open_slide`, so that a file that cannot be opened is a failure of that
        slide. With processes, the function and its results must be picklable.
    on_error : {"raise", "skip"}, default="raise"
        What to do after the last slide if some failed: "raise" raises :class:`CohortError`, which names them
        and holds the results of the others; "skip" returns results and failures. Each failure is logged when
        it occurs.
    n_jobs : int, optional
        Number of slides processed in parallel, as in joblib: None is one, unless set by
        ``joblib.parallel_config`` (whose backend is used: processes, threads, Dask); -1 is the number of
        processors.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    run : CohortRun
        ``results`` and ``failures``, by name.

    Raises
    ------
    CohortError
        If slides failed and `on_error` is "raise".
    ValueError
        If `on_error` is invalid; if a name is not a valid file name (empty, "..", with "/", longer than 200
        bytes); or if two names are equal, also up to case or Unicode form.

    Notes
    -----
    Any ``Exception`` raised by the function is a failure of its slide. ``KeyboardInterrupt`` and
    ``SystemExit`` are raised immediately; to be resumable, a function should write files and skip slides that
    have them. If the operating system ends a worker process (out of memory), the remaining slides are
    failures with that reason, and finished results are kept. Dask starts another worker and repeats the
    slides of the lost one, up to its limit (``distributed.scheduler.allowed-failures``).

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np, tifffile
    >>> from proportion_ssl.slides.reading.slide import open_slide
    >>> def width(path):
    ...     with open_slide(path, mpp=0.5) as slide:
    ...         return slide.dimensions[0]
    >>> with TemporaryDirectory() as folder:
    ...     good, broken = folder + "/good.tif", folder + "/broken.tif"
    ...     pixels = np.full((256, 512, 3), 200, dtype=np.uint8)
    ...     tifffile.imwrite(good, pixels, tile=(256, 256), photometric="rgb")
    ...     _ = Path(broken).write_text("no slide")
    ...     run = process_slides([good, broken], width, on_error="skip")
    >>> run.results, run.failures["broken"].error
    ({'good': 512}, 'SlideError')
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip", got {on_error!r}.')
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}.")
    entries = named_slides(slides)
    with tqdm(total=len(entries), unit="slide", desc="slides", disable=not verbose) as progress:
        run = run_cohort(entries, function, lambda result: progress.update(), n_jobs=n_jobs)
    run.check(on_error)
    return run


def run_cohort(
    entries: Mapping[str, Any],
    function: Callable[[Any], Any],
    finished: Callable[[Any], Any],
    *,
    n_jobs: int | None,
) -> CohortRun:
    """:func:`process_slides` without raising; calls ``finished(result)`` after each slide.

    The result of a slide that failed is None.
    """
    outcomes: dict[str, Any] = {}
    failures: dict[str, SlideFailure] = {}
    tasks = (delayed(_attempt)(function, name, entry) for name, entry in entries.items())
    # one slide per batch, so that a lost worker loses only one
    parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1)
    try:
        for name, result, failure in parallel(tasks):
            if failure is None:
                outcomes[name] = result
            else:
                failures[name] = failure
                logger.warning("%s", failure)
            finished(result)
    except Exception as error:
        if not _worker_ended(error):
            raise
        for name in entries.keys() - outcomes.keys() - failures.keys():
            failures[name] = SlideFailure(
                name,
                type(error).__name__,
                "not done: a worker process was killed, perhaps because of insufficient "
                "memory. Run the remaining slides with fewer n_jobs.",
            )
        logger.warning("a worker process ended; %d slides are not done", len(failures))
    return CohortRun(
        {name: outcomes[name] for name in entries if name in outcomes},
        {name: failures[name] for name in entries if name in failures},
    )


def named_slides(
    slides: Iterable[str | PathLike[str]] | Mapping[str, Any],
) -> dict[str, Any]:
    """Slides by name, in the form of :func:`process_slides`."""
    if isinstance(slides, Mapping):
        check_names(slides)
        return dict(slides)
    if isinstance(slides, str | PathLike):
        raise TypeError(
            f"slides must be a list of paths or a mapping, got the one path {slides!r}."
        )
    entries: dict[str, Any] = {}
    for path in slides:
        name = Path(fspath(path)).stem
        if name in entries:
            raise ValueError(
                f"two slides are named {name!r}: {entries[name]} and {path}; give a mapping of "
                "names to paths."
            )
        entries[name] = path
    check_names(entries)
    return entries


def _worker_ended(error: Exception) -> bool:
    """Whether a worker process was lost, or Dask gave up a slide that killed several workers."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def _attempt(function, name, entry):
    """Name, result, and failure or None, which can all travel between processes."""
    try:
        return name, function(entry), None
    except Exception as error:  # any error of one slide must not stop the others
        reason = " ".join(str(error).split()) or "(no message)"
        return name, None, SlideFailure(name, type(error).__name__, reason, traceback.format_exc())


def _message(run: CohortRun) -> str:
    n = len(run.results) + len(run.failures)
    shown = [str(failure) for failure in run.failures.values()][:SHOWN_FAILURES]
    more = len(run.failures) - len(shown)
    names = ", ".join(list(run.failures)[SHOWN_FAILURES:])
    text = "\n".join(f"- {line}" for line in shown) + (f"\n- and {more} more: {names}" * (more > 0))
    return (
        f"{len(run.failures)} of {n} slides failed; the results of the other {len(run.results)} "
        f'are in .run.results of this error, or are returned with on_error="skip":\n{text}'
    )
