"""Changed bytes in slides, read beside openslide-python in processes of their own."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "faults" / "mutated_slides.py"


@pytest.mark.slow
def test_changed_slides_end_no_process_and_show_openslides_pixels(tmp_path):
    spec = importlib.util.spec_from_file_location("mutated_slides", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / "originals").mkdir()
    originals = script.write_originals(tmp_path / "originals", size=256)
    counts, faults = script.run(24, seed=2, originals=originals, folder=tmp_path)
    assert not faults, faults[:5]
    assert counts["dead"] == counts["hung"] == counts["different"] == counts["only_ours"] == 0
    assert counts["equal"] > 50
    assert counts["refused"] + counts["damaged"] > 0
