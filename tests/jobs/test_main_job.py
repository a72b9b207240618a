"""The main job from manifest to maps, on small slides of which two cannot be read."""

import importlib.util
import re
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import sklearn
import tifffile

from proportion_ssl.datasets import make_slides
from proportion_ssl.slides import read_annotations, read_label_map

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "segment_slides.py"
FIRST_HOUR = ROOT / "docs" / "guide" / "first_hour.rst"


@pytest.fixture
def job():
    spec = importlib.util.spec_from_file_location("segment_slides", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["segment_slides"] = module  # dataclasses and pickle look it up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["segment_slides"]


def test_eight_slides_of_which_two_cannot_be_read(job, tmp_path, monkeypatch, capsys):
    manifest = make_slides(
        tmp_path / "cohort", n_labeled=4, n_bags=3, n_test=1, slide_size=2688, random_state=0
    )
    slides = manifest.parent / "slides"
    truncated, unscaled = slides / "bag_01.tif", slides / "bag_02.tif"
    truncated.write_bytes(truncated.read_bytes()[:5000])
    pixels = tifffile.imread(unscaled, level=1)
    tifffile.imwrite(unscaled, pixels, tile=(256, 256), photometric="rgb", compression="jpeg")

    def no_weights(*arguments, **settings):
        raise job.WeightsNotAvailableError("There are no weights (in a test).")

    monkeypatch.setattr(
        job.PatchEmbedder, "fingerprint", _once(no_weights, job.PatchEmbedder.fingerprint)
    )
    output = tmp_path / "out"
    job.main(["--cohort", str(manifest), "--output", str(output)])

    printed = capsys.readouterr().out
    assert "RANDOM filters" in printed
    assert "Left out, not readable: bag_01" in printed
    assert "Left out, not readable: bag_02" in printed
    assert "6 slides," in printed
    assert len(list((output / "features").glob("*.h5"))) == 6
    table = pd.read_csv(output / "test.csv", index_col="system")
    assert table.index.tolist() == ["supervised", "proposed"]
    assert table[["OP", "PC", "mIoU"]].stack().between(0, 1).all()
    for name in ("labels.png", "overlay.png", "truth.png"):
        assert (output / f"test_01_{name}").stat().st_size > 100
    found = {region.class_name for region in read_label_map(output / "test_01_labels.tif")}
    assert found
    assert found <= {*table_of_classes(manifest), job.NOT_CANCER}
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "test_01" in page

    monkeypatch.chdir(output.parent)
    (output.parent / "segmentation").symlink_to(output)
    segment_one, hand_on, *_ = code_blocks(FIRST_HOUR)
    variables = {}
    exec(segment_one.replace("CMU-1-Small-Region.svs", str(slides / "test_01.tif")), variables)
    of_job = read_label_map(output / "test_01_labels.tif")
    of_guide = read_annotations(tmp_path / "prediction.geojson")
    assert areas(of_guide) == pytest.approx(areas(of_job))
    X, fitted = variables["X"], variables["model"]
    exec(hand_on, variables)
    assert (variables["model"].predict_proba(X) == fitted.predict_proba(X)).all()


def areas(regions):
    """Area of each class."""
    total = {}
    for region in regions:
        total[region.class_name] = total.get(region.class_name, 0) + region.geometry.area
    return total


def code_blocks(page):
    """Python of a page of the guide."""
    blocks = page.read_text(encoding="utf-8").split(".. code-block:: python\n")[1:]
    return [textwrap.dedent(re.split(r"\n(?=\S)", block, maxsplit=1)[0]) for block in blocks]


def test_grid_search_of_the_guide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    *_, make_files, search = code_blocks(FIRST_HOUR)
    variables = {}
    exec(make_files, variables)
    with sklearn.config_context():
        exec(search.replace("max_epochs=30", "max_epochs=2"), variables)
    assert "std_test_score" in capsys.readouterr().out
    assert variables["model"].classes_.tolist() == ["acinar", "lepidic", "papillary", "solid"]


def test_table_of_a_hospital(job, tmp_path, monkeypatch):
    """What is wrong with the table is said without a traceback; other columns are told apart."""
    monkeypatch.setattr(job, "choose_embedder", lambda weights: None)
    for name in ("a.tif", "b.tif", "a.geojson"):
        (tmp_path / name).touch()
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(
        "slide,annotation,role,age,x,y\na.tif,a.geojson,labeled,,,\nb.tif,,bag,71,20,80\n"
    )
    options = ["--cohort", str(manifest), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=r"read as classes: age, x, y.*\n.*'b' sum to 171"):
        job.main(options)
    with pytest.raises(SystemExit, match="None of the outlined slides can be read"):
        job.main([*options, "--classes", "x", "y"])


def table_of_classes(manifest):
    return set(pd.read_csv(manifest).columns) - {"slide", "annotation", "role"}


def _once(first, then):
    """A function that behaves as `first` when it is called for the first time, then as `then`."""
    calls = []

    def function(*arguments, **settings):
        calls.append(1)
        return (first if len(calls) == 1 else then)(*arguments, **settings)

    return function
