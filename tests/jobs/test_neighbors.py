"""The pages about other tools: their code runs on files laid out as those tools write them."""

import re
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
import torch
from feature_cohorts import add_clam_patches, write_feature_cohort
from foreign_features import write_eva, write_slideflow, write_torchmil
from sklearn.linear_model import LogisticRegression

from proportion_ssl.__main__ import DONE, main
from proportion_ssl.slides import read_annotations

PAGES = Path(__file__).parents[2] / "docs" / "guide" / "neighbors"
TRIDENT = Path("trident/20x_256px_0px_overlap/features_uni_v1")


def blocks(page):
    """Blocks of Python of a page, as one program."""
    text = (PAGES / f"{page}.rst").read_text(encoding="utf-8")
    found = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    lines = "".join(found).splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines)


def cohort(folder, program, place, **settings):
    manifest, features = write_feature_cohort(folder, program=program, **settings)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    features.rename(folder / place)
    return manifest


def trident(folder):
    cohort(folder, "TRIDENT", TRIDENT)


def clam(folder):
    """Features without attributes, also as tensors, and coordinates with attributes beside."""
    cohort(folder, "CLAM", "clam/h5_files", mpp=True)
    add_clam_patches(folder / "clam" / "h5_files")
    (folder / "clam" / "pt_files").mkdir()
    for path in sorted((folder / "clam" / "h5_files").iterdir()):
        with h5py.File(path) as file:
            features = file["features"][:]
        torch.save(torch.from_numpy(features), folder / "clam" / "pt_files" / f"{path.stem}.pt")


def stamp(folder):
    cohort(folder, "STAMP", "stamp/uni2-1a2b3c4d", mpp=True)


def more_features(folder):
    features = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    cells = np.stack(np.divmod(np.arange(6), 3), axis=1)
    for name in ("bags", "eva", "mil"):
        (folder / name).mkdir()
    write_slideflow(folder / "bags" / "slide.pt", features, cells * 512 + 256)
    write_eva(folder / "eva" / "slide.pt", features)
    write_torchmil(folder / "mil", "slide", features, cells * 512)


def lazyslide(folder):
    rng = np.random.default_rng(0)
    corner = np.stack(np.divmod(np.arange(6), 3), axis=1) * 512
    tiles = pd.DataFrame({"geometry": shapely.box(*corner.T, *(corner + 512).T)})
    bounds = shapely.bounds(tiles["geometry"].to_numpy())
    frame = type("Tiles", (pd.DataFrame,), {"geometry": SimpleNamespace(bounds=bounds)})(tiles)
    X = rng.normal(size=(6, 4)).astype(np.float32)
    spec = {"width": 256, "stride_width": 256, "mpp": 0.5}
    attrs = {"slide_properties": {"mpp": 0.25, "shape": [4000, 6000]}, "tile_spec": {"tiles": spec}}
    obs = pd.DataFrame({"region": list("aabbcc")})
    return {
        "wsi": SimpleNamespace(
            tables={"uni_tiles": SimpleNamespace(X=X)}, shapes={"tiles": frame}, attrs=attrs
        ),
        "model": LogisticRegression().fit(X, ["acinar", "solid"] * 3),
        "adata": SimpleNamespace(obsm={"uni": X}, obs=obs, X=X),
        "shares": pd.DataFrame({"acinar": [0.5, 1, 0], "solid": [0.5, 0, 1]}, list("abc")),
    }


MADE = {
    "clam": clam,
    "lazyslide": lazyslide,
    "more_features": more_features,
    "qupath": lambda folder: None,
    "stamp": stamp,
    "tiatoolbox": lambda folder: None,
    "trident": trident,
}


def test_every_page_is_run():
    assert {path.stem for path in PAGES.glob("*.rst")} == {*MADE, "index"}


@pytest.mark.slow
@pytest.mark.parametrize("page", MADE)
def test_page(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = MADE[page](tmp_path) or {}
    exec(compile(blocks(page), f"{page}.rst", "exec"), names)
    if page == "trident":
        (outlines,) = tmp_path.glob("maps/case.test_9.geojson")
        assert {region.class_name for region in read_annotations(outlines)} >= {"acinar", "solid"}
        assert blocks(page).split("from proportion_ssl.slides")[0].count("\n") <= 10


@pytest.mark.slow
def test_one_command_from_features_to_maps(tmp_path, monkeypatch, capsys, caplog):
    """And new slides by their names alone."""
    manifest = cohort(tmp_path, "TRIDENT", TRIDENT)
    monkeypatch.chdir(tmp_path)
    features = ["--features", str(TRIDENT)]
    assert main(["check", str(manifest), *features]) == DONE
    assert (
        main(["run", str(manifest), *features, "--output", "out", "--no-cv", "--compare"]) == DONE
    )
    assert {path.name for path in Path("out/slides").glob("*.geojson")} == {
        "case.test_9.geojson",
        "case.test_10.geojson",
    }
    scores = pd.read_csv("out/test.csv")
    assert scores["mIoU"].iloc[0] > 0.85
    assert "features of uni_v1 from files" in capsys.readouterr().out
    nominal = [text for text in caplog.messages if "the resolution of" in text]
    assert len(nominal) == 1 and "case.labeled_2 and 8 more is not stated" in nominal[0]
    caplog.clear()
    model = "out/model.segmenter"
    names = ["elsewhere/case.test_9.svs", "elsewhere/case.test_10.svs", "--output", "new"]
    assert main(["apply", model, *names, *features]) == DONE
    (nominal,) = caplog.messages
    assert "of case.test_9, case.test_10 is not stated" in nominal and "--mpp" in nominal
    printed = capsys.readouterr().out
    assert "Label maps, outlines for QuPath and slides.csv are in new" in printed
    assert not list(Path("new").glob("*.png"))
    assert main(["apply", model, *names, *features, "--mpp", "4"]) == DONE
    assert len(caplog.messages) == 1, "no further one"
    assert read_annotations("new/case.test_9.geojson")
