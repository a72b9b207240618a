"""Slides known again: by every byte of all their files, or by time, size and samples."""

import os
import shutil

import numpy as np
import pytest

from proportion_ssl.slides.features.slide_files import (
    N_SAMPLES,
    SAMPLE_BYTES,
    file_fingerprint,
    file_stamp,
    files_of,
)


def flip(path, at):
    """Change one byte, and neither size nor time."""
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def large(tmp_path):
    """A file of which samples alone are looked at."""
    path = tmp_path / "large.svs"
    path.write_bytes(np.random.default_rng(0).bytes(N_SAMPLES * SAMPLE_BYTES * 2))
    return path


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 0.999999])
def test_every_byte_counts(large, share):
    before = file_fingerprint(large)
    flip(large, int(large.stat().st_size * share))
    assert file_fingerprint(large) != before and len(before) == 64


def test_a_copy_is_the_same_slide(large, tmp_path):
    copy = shutil.copy(large, tmp_path / "other.svs")
    os.utime(copy, (1, 1))
    assert file_fingerprint(copy) == file_fingerprint(large)
    assert file_stamp(copy) != file_stamp(large), "its time of change is another"
    shutil.copy2(large, copy)
    assert file_stamp(copy) == file_stamp(large)


def test_what_a_stamp_notices(large, tmp_path):
    before = file_stamp(large)
    assert file_stamp(large) == before
    size = large.stat().st_size
    for at in (0, SAMPLE_BYTES - 1, size - 1, size - SAMPLE_BYTES):  # with the time as it was
        flip(large, at)
        assert file_stamp(large) != before
        flip(large, at)
    assert file_stamp(large) == before
    samples = np.linspace(0, size - SAMPLE_BYTES, N_SAMPLES).astype(int)
    flip(large, int(samples[N_SAMPLES // 2]))
    assert file_stamp(large) != before
    os.utime(large)
    small = tmp_path / "small.svs"
    small.write_bytes(bytes(10**6))
    before = file_stamp(small)
    flip(small, 500_000)
    assert file_stamp(small) != before, "a small file is read as a whole"


def test_empty_and_missing(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"")
    assert len(file_fingerprint(tmp_path / "a.svs")) == len(file_stamp(tmp_path / "a.svs")) == 64
    for function in (file_fingerprint, file_stamp, files_of):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "none.vms")


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def dicom(series, explicit=True):
    """The beginning of a DICOM file: a preamble, another element, and the identifier of its series."""
    series = series.encode() + b"\0" * (len(series) % 2)
    length = len(series).to_bytes(2, "little")
    kind = b"UI" + length if explicit else length + b"\0\0"
    return bytes(128) + b"DICM" + b"\x08\0\x60\0CS\2\0SM\x20\0\x0e\0" + kind + series


OME = b"II*\0" + bytes(50_000) + b'<UUID FileName="b.ome.tif">'
SLIDES = {  # the files of a slide, the one that is opened first, and others beside it
    "mirax": (
        {"a.mrxs": b"", "a/Slidedat.ini": b"x", "a/Data0.dat": b"y"},
        {"b.mrxs": b"z", "b/Data0.dat": b"y"},
    ),
    "vms": (
        {"a.vms": b"[VMS]\r\nImage=i_0.jpg\r\nMap = m.opt\n", "i_0.jpg": b"1", "m.opt": b"2"},
        {"other.jpg": b"3"},
    ),
    "vmu": ({"a.vmu": b"ImageFile=i.ngr", "i.ngr": b"1"}, {"j.ngr": b"3"}),
    "ome": ({"a.ome.tif": OME, "b.ome.tif": b"1"}, {"c.ome.tif": b"3"}),
    "dicom": (
        {"a.dcm": dicom("1.2.3"), "b.dcm": dicom("1.2.3") + b"b", "c": dicom("1.2.3", False)},
        {"d.dcm": dicom("1.2.34"), "e.txt": b"x"},
    ),
    "one file": ({"a.svs": b"x"}, {"b.svs": b"y"}),
}


@pytest.mark.parametrize("function", [file_fingerprint, file_stamp])
@pytest.mark.parametrize("kind", SLIDES)
def test_all_files_of_a_slide_count(tmp_path, kind, function):
    own, others = SLIDES[kind]
    write(tmp_path / "here", own | others)
    slide = tmp_path / "here" / next(iter(own))
    before = function(slide)
    for name in own | others:
        path = slide.parent / name
        content, status = path.read_bytes(), path.stat()
        path.write_bytes(content + b"more")
        assert (function(slide) != before) == (name in own), name
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert function(slide) == before
    copied = shutil.copytree(slide.parent, tmp_path / "there")
    assert function(copied / slide.name) == before


def test_files_elsewhere_are_not_read(tmp_path):
    write(tmp_path, {"slides/a.vms": b"Image=../secret.jpg\nMap=/etc/passwd\n", "secret.jpg": b"x"})
    assert list(files_of(tmp_path / "slides/a.vms")) == [""]


def test_a_real_dicom_slide(real_data):
    folder = real_data / "slides" / "openslide-python-fixtures"
    assert sorted(p.name for p in files_of(folder / "boxes_1.dcm").values()) == [
        "boxes_0.dcm",
        "boxes_1.dcm",
    ]
