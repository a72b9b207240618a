"""The errors of slides that cannot be used as they are."""

from __future__ import annotations


class SlideError(OSError, ValueError):
    """A slide cannot be opened, lacks its resolution, changed on disk, or has unreadable pixels.

    The message names the slide. Code that works through a cohort can catch this one class, note
    the slide, and go on with the next (:func:`~proportion_ssl.slides.process_slides` does);
    a missing file raises ``FileNotFoundError``, which like this error is an ``OSError``.

    Examples
    --------
    >>> issubclass(SlideError, OSError), issubclass(SlideError, ValueError)
    (True, True)
    """


class NoTissueError(SlideError):
    """A slide shows no tissue, or too little in any one patch; the message names the slide.

    Examples
    --------
    >>> issubclass(NoTissueError, SlideError)
    True
    """
