"""Names of slides: names of files on every system, or refused before anything is done."""

import os

import pytest

from proportion_ssl.slides import embed_slides, process_slides
from proportion_ssl.slides.features.names import MAX_BYTES

BAD = ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", "a\nb", "x" * 250, "\u00e9" * 101, "a\udcffb"]


class Never:
    def fingerprint(self):
        raise AssertionError("asked before the names were checked")

    transform = fingerprint


def run(slides, folder, by):
    if by == "embed_slides":
        return embed_slides(slides, Never(), folder / "features", on_error="skip")
    return process_slides(slides, Never().transform)


both = pytest.mark.parametrize("by", ["embed_slides", "process_slides"])


@both
@pytest.mark.parametrize("name", BAD, ids=[ascii(name)[:20] for name in BAD])
def test_what_is_no_file_name(tmp_path, by, name):
    with pytest.raises(ValueError, match="cannot name the files of a slide"):
        run({"a": "a.svs", name: "b.svs"}, tmp_path, by)
    assert os.listdir(tmp_path) == []


@both
@pytest.mark.parametrize(
    ("one", "other"), [("a", "A"), ("stra\u00dfe", "STRASSE"), ("caf\u00e9", "cafe\u0301")]
)
def test_names_that_are_one_file_elsewhere(tmp_path, by, one, other):
    for slides in ({one: "1", other: "2"}, [f"x/{one}.svs", f"y/{other}.svs"]):
        with pytest.raises(ValueError, match="differ in case or Unicode form only"):
            run(slides, tmp_path, by)
    assert os.listdir(tmp_path) == []


@both
def test_names_must_be_strings(tmp_path, by):
    with pytest.raises(TypeError, match="must be strings, got 3"):
        run({3: "a.svs"}, tmp_path, by)


@both
def test_paths_without_a_name(tmp_path, by):
    with pytest.raises(ValueError, match="cannot name the files"):
        run(["slides/.."], tmp_path, by)


def test_usual_names():
    names = ["TCGA-05-4244.DX1", "slide 1 (H&E)", "\u8178", ".hidden", "x" * MAX_BYTES, "a", "b"]
    assert list(process_slides(dict.fromkeys(names, 0), abs).results) == names
