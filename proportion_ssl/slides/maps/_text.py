"""Text files that may be packed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def text_file(path: Path, *, packed: bool) -> Iterator[TextIO]:
    """A new text file in UTF-8, packed by gzip if wanted; the same content gives the same bytes.

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
