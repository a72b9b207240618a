"""Atomic file writing, and removal of temporary files left by killed processes."""

from __future__ import annotations

import os
import re
import secrets
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_SECONDS = 3600
"""Age of the last write after which a temporary file is assumed to be abandoned."""

ABANDONED_ELSEWHERE_SECONDS = 7 * 24 * 3600
"""The same for files from another machine, whose clock may be off by hours."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it to ``path`` if the block succeeds.

    Readers of ``path`` see the old file or the complete new one, even after a power failure. If the block
    raises, the temporary file is removed and the old file is kept.

    Errors of the operating system name ``path``, not the temporary file; a folder that does not exist is
    reported before the block begins.
    """
    path = Path(path)
    if not path.parent.is_dir():
        if path.parent.exists():
            raise NotADirectoryError(
                f"{str(path.parent)!r} is a file, so {path.name!r} cannot be in it."
            )
        raise FileNotFoundError(
            f"folder {str(path.parent)!r} does not exist; create it first (to write {path.name!r})."
        )
    owner = f"{_this_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{owner}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # write the content to disk before renaming
        os.replace(temporary, path)
    except OSError as error:
        if str(error.filename) != str(temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder.

    Files of processes that are running on this machine are always kept. Ages are measured with the clock of
    the file system, by creating a file in the same folder.
    """
    found = list(folder.glob(".*.tmp"))
    if not found:
        return
    now = _time_on_disk(folder)
    for temporary in found:
        with suppress(FileNotFoundError):  # removed by its owner or another run
            if now - temporary.stat().st_mtime > _patience(temporary.name):
                temporary.unlink()


def _patience(name: str) -> float:
    """Seconds after which a temporary file of this name is abandoned."""
    owner = re.search(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp$", name)
    if owner is None:  # written by an earlier version
        return ABANDONED_SECONDS
    if owner[1] != _this_machine():
        return ABANDONED_ELSEWHERE_SECONDS
    return float("inf") if _is_running(int(owner[2])) else ABANDONED_SECONDS


def _this_machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # there, os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # process of another user
        return True
    return True


def _time_on_disk(folder: Path) -> float:
    probe = folder / f".{_this_machine()}-{os.getpid()}-{secrets.token_hex(4)}.clock"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
