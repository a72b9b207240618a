"""Files that appear complete or not at all, and what killed processes leave of them."""

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
"""A temporary file that nobody has written to for so long belongs to a process that was ended."""

ABANDONED_ELSEWHERE_SECONDS = 7 * 24 * 3600
"""The same for a process of another machine, whose clock may be wrong by hours."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there if the block succeeds.

    Whoever opens ``path`` sees the old file or the whole new one, also after a loss of power. If the
    block raises, the temporary file is removed and the old one stays.
    """
    path = Path(path)
    owner = f"{_this_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{owner}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # the content reaches the disk before the name does
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that killed processes have left in a folder.

    A file of a process that runs on this machine is kept, however old it is. Ages are told by the clock
    of the disk, which dates a new file in the same folder.
    """
    found = list(folder.glob(".*.tmp"))
    if not found:
        return
    now = _time_on_disk(folder)
    for temporary in found:
        with suppress(FileNotFoundError):  # its owner, or another run, was faster
            if now - temporary.stat().st_mtime > _patience(temporary.name):
                temporary.unlink()


def _patience(name: str) -> float:
    """Seconds after which a temporary file of this name is abandoned."""
    owner = re.search(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp$", name)
    if owner is None:  # of an earlier version
        return ABANDONED_SECONDS
    if owner[1] != _this_machine():
        return ABANDONED_ELSEWHERE_SECONDS
    return float("inf") if _is_running(int(owner[2])) else ABANDONED_SECONDS


def _this_machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # where asking for it would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _time_on_disk(folder: Path) -> float:
    probe = folder / f".{_this_machine()}-{os.getpid()}-{secrets.token_hex(4)}.clock"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
