"""Files that appear whole or not at all; what killed processes left behind, and what living ones write."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proportion_ssl import _atomic
from proportion_ssl._atomic import remove_abandoned, replacing

HOUR = 3600.0


def leave(folder, owner, age):
    """A temporary file of that age by the clock of the disk."""
    path = folder / f".slide.h5.{owner}.tmp"
    path.write_bytes(b"half a file")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def dead():
    """Number of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize("hours", [0, 2, 1000])
def test_a_living_writer_keeps_its_file(tmp_path, hours):
    with replacing(tmp_path / "slide.h5") as temporary:
        temporary.write_bytes(b"half a file")
        then = time.time() - hours * HOUR
        os.utime(temporary, (then, then))
        remove_abandoned(tmp_path)
        assert temporary.exists()
    assert os.listdir(tmp_path) == ["slide.h5"]


@pytest.mark.skipif(os.name == "nt", reason="processes of others are not looked at")
def test_files_of_the_dead_are_removed_after_an_hour(tmp_path, dead):
    here = _atomic._this_machine()
    old = leave(tmp_path, f"{here}-{dead}-0011aabb", 1.1 * HOUR)
    new = leave(tmp_path, f"{here}-{dead}-0011aabc", 0.9 * HOUR)
    remove_abandoned(tmp_path)
    assert not old.exists() and new.exists()


def test_errors_name_the_file_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = r"^folder 'nodir' does not exist; create it first \(to write 'u\.model'\)\.$"
    with pytest.raises(FileNotFoundError, match=message), replacing("nodir/u.model"):
        pytest.fail("nothing is computed")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"^'file' is a file, so"), replacing("file/u"):
        pytest.fail("nothing is computed")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r" 'folder'$"), replacing("folder") as temporary:
        temporary.touch()
    with pytest.raises(FileNotFoundError, match=r" 'u'$"), replacing("u"):
        pass
    with pytest.raises(FileNotFoundError, match=r" 'other'$"), replacing("u"):
        Path("other").read_bytes()
    assert sorted(os.listdir()) == ["file", "folder"]


def test_files_of_other_machines_are_kept_for_a_week(tmp_path):
    """Their clocks may be wrong by hours, and their processes cannot be seen."""
    machine = f"{int(_atomic._this_machine(), 16) ^ 1:08x}"
    new = leave(tmp_path, f"{machine}-{os.getpid()}-0011aabb", 24 * HOUR)
    old = leave(tmp_path, f"{machine}-{os.getpid()}-0011aabc", 8 * 24 * HOUR)
    remove_abandoned(tmp_path)
    assert new.exists() and not old.exists()


def test_the_clock_of_the_disk_counts(tmp_path, monkeypatch):
    """A file of another version just written, by a machine whose clock is six hours ahead."""
    new = leave(tmp_path, "12345-0011aabb", 0)
    old = leave(tmp_path, "12345-0011aabc", 2 * HOUR)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 6 * HOUR)
    remove_abandoned(tmp_path)
    assert new.exists() and not old.exists()
    assert os.listdir(tmp_path) == [new.name]
