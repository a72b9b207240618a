"""Text files with optional compression."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def text_file(path: Path, *, packed: bool) -> Iterator[TextIO]:
    """Open a new UTF-8 text file, optionally compressed by gzip; equal content gives equal bytes.

    Parameters
    ----------
    path : Path
    packed : bool

    Yields
    ------
    file : text file
    """
    if not packed:
        with open(path, "w", encoding="utf-8") as file:
            yield file
        return
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=5, fileobj=raw, mtime=0) as binary,
        io.TextIOWrapper(binary, encoding="utf-8") as text,
    ):
        yield text
