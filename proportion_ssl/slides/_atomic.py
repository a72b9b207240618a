"""Files that appear complete or not at all, and what killed processes leave of them."""

from __future__ import annotations

import time
from pathlib import Path

from proportion_ssl._atomic import replacing

__all__ = ["remove_abandoned", "replacing"]

ABANDONED_SECONDS = 3600
"""A temporary file that nobody has written to for so long belongs to a process that was ended."""


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that killed processes have left in a folder."""
    for temporary in folder.glob(".*.tmp"):
        try:
            if time.time() - temporary.stat().st_mtime > ABANDONED_SECONDS:
                temporary.unlink()
        except FileNotFoundError:  # its owner, or another run, was faster
            continue
