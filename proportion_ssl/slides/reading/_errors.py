"""Errors for unusable slides."""

from __future__ import annotations


class SlideError(OSError, ValueError):
    """A slide cannot be opened, lacks its resolution, changed on disk, or has unreadable pixels.

    The message names the slide. Code that processes a cohort can catch this class, record the slide, and
    continue with the next (:func:`~proportion_ssl.slides.process_slides` does); a missing file raises
    ``FileNotFoundError``, which like this error is an ``OSError``.

    Examples
    --------
    >>> issubclass(SlideError, OSError), issubclass(SlideError, ValueError)
    (True, True)
    """


class NoTissueError(SlideError):
    """A slide shows no tissue, or too little in every patch; the message names the slide.

    Examples
    --------
    >>> issubclass(NoTissueError, SlideError)
    True
    """
