"""Files of a slide, and their fingerprints."""

from __future__ import annotations

import hashlib
import os
import re
from os import PathLike
from pathlib import Path

import numpy as np

SAMPLE_BYTES = 2**16
N_SAMPLES = 128
HEAD_BYTES = 2**14
"""Where the text of a file that names others is looked for: at its begin and at its end."""


def file_fingerprint(path: str | PathLike[str]) -> str:
    """SHA-256 of a file and of the files that belong to it.

    Parameters
    ----------
    path : str or path-like
        A slide, a file of weights. Slides of several files count with all of them: MIRAX (the folder
        beside the .mrxs), Hamamatsu VMS and VMU (the files that these name), DICOM (files of the same
        series in the folder), OME-TIFF (files that its text names).

    Returns
    -------
    fingerprint : str
        64 hexadecimal digits. A copy has the same; any change gives another.

    Notes
    -----
    Every byte is read, at the speed of the disk or about 1 GB per second.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.bin"
    >>> _ = path.write_bytes(b"abc")
    >>> file_fingerprint(path)[:8]
    'd775ca3e'
    """
    digest = hashlib.sha256()
    for name, part in files_of(path).items():
        with open(part, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(
            f"{name}\0{part.stat().st_size}\0{content}\0".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def file_stamp(path: str | PathLike[str]) -> str:
    """Hash of sizes, modification times and samples, to detect changes of a slide quickly.

    Parameters
    ----------
    path : str or path-like
        As :func:`file_fingerprint` takes it.

    Returns
    -------
    stamp : str
        64 hexadecimal digits. A copy may have another; then :func:`file_fingerprint` tells.

    Notes
    -----
    Reads up to 8 MiB of each file: all of a smaller one, of a larger one its begin, its end and pieces of 64
    KiB at equal distances. A change of a large file is not detected if size and time are unchanged and it
    lies between the pieces.
    """
    digest = hashlib.sha256()
    for name, part in files_of(path).items():
        with open(part, "rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            text = f"{name}\0{size}\0{status.st_mtime_ns}\0"
            digest.update(text.encode(errors="surrogateescape"))
            if size <= N_SAMPLES * SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for start in np.linspace(0, size - SAMPLE_BYTES, N_SAMPLES).astype(np.int64).tolist():
                file.seek(start)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def files_of(path: str | PathLike[str]) -> dict[str, Path]:
    """The files of a slide by their name relative to its folder; the slide itself is named "".

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    files : dict of str to Path
        In order of their names. A copy of the slide under another name has the same names, but for MIRAX
        slides, whose folder has the slide's.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    parts: list[Path] = []
    if suffix == ".mrxs" and path.with_suffix("").is_dir():
        folder = path.with_suffix("")
        return {"": path} | {f"*/{p.relative_to(folder)}": p for p in _all_files(folder)}
    if suffix in (".vms", ".vmu"):
        parts = _named_in(path, rb"=[ \t]*([^\r\n]+?)[ \t]*\r?(?:\n|$)")
    elif path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        parts = _named_in(path, rb'FileName="([^"]+)"')
    elif suffix in (".dcm", ".dicom", "") and (series := _dicom_series(path)) is not None:
        parts = [p for p in sorted(path.parent.iterdir()) if _dicom_series(p) == series]
    others = {p.name: p for p in parts if p.name != path.name}
    return {"": path} | {name: others[name] for name in sorted(others)}


def _all_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _named_in(path: Path, pattern: bytes) -> list[Path]:
    """Files beside a file that its text names."""
    names = {match.decode(errors="surrogateescape") for match in re.findall(pattern, _ends(path))}
    beside = (path.with_name(name) for name in names if Path(name).name == name)
    return [p for p in beside if p.is_file()]


def _dicom_series(path: Path) -> bytes | None:
    """The identifier of the series that a DICOM file belongs to, None for other files."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head[128:132] != b"DICM":
        return None
    # element (0020,000E): with the letters UI and a length of two bytes, or without and of four
    found = re.search(rb"\x20\x00\x0e\x00(?:UI(..)|(..)\x00\x00)([0-9.]+)", head, re.DOTALL)
    return None if found is None else found[3][: int.from_bytes(found[1] or found[2], "little")]


def _ends(path: Path) -> bytes:
    with open(path, "rb") as file:
        begin = file.read(HEAD_BYTES)
        file.seek(max(os.fstat(file.fileno()).st_size - HEAD_BYTES, 0))
        return begin + b"\n" + file.read()
