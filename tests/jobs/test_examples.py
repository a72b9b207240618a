"""The gallery runs: every example, without a display, with warnings as errors."""

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import sklearn
import torch

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
PLOTS = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.glob("*/plot_*.py"))
# start processes, which import the script's guard
IN_PROCESSES = ["scaling/plot_dask.py", "scaling/plot_dask_cohort.py"]

matplotlib = pytest.importorskip("matplotlib", reason="the gallery draws: pip install matplotlib")


@pytest.fixture
def _agg():
    """No window, nothing left open, and scikit-learn's settings as they were."""
    import matplotlib.pyplot as plt

    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    n_threads = torch.get_num_threads()
    with sklearn.config_context():
        yield plt
    torch.set_num_threads(n_threads)
    plt.close("all")
    plt.switch_backend(backend)


def test_examples_are_found():
    assert {"first_steps/plot_idea.py", "own_data/plot_grouped_grid_search.py"} <= set(PLOTS)
    assert not list(EXAMPLES.glob("plot_*.py"))  # the gallery shows folders


def test_every_folder_says_what_it_is_for():
    for folder in {Path(name).parent for name in PLOTS}:
        assert re.match(r"[A-Z][^\n]+\n-+\n\n[A-Z]", (EXAMPLES / folder / "README.rst").read_text())


@pytest.mark.parametrize("name", PLOTS)
def test_example_is_in_gallery_form(name):
    """A title, a story of a sentence or more, and blocks of text between the code."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert re.match(r'"""\n([^\n]+)\n=+\n\n[A-Z].{80,}?"""\n', text, re.DOTALL), "title and story"
    assert len(re.findall(r"^# %%\n# \S", text, re.MULTILINE)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PLOTS if name not in IN_PROCESSES])
def test_example_runs(name, _agg, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # what plt.show() says where there is no window; a reader of the gallery has one
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive", UserWarning)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    printed = capsys.readouterr().out
    drawn = [_agg.figure(number).axes for number in _agg.get_fignums()]
    assert printed.strip() or drawn, "an example prints or draws something"
    assert all(any(ax.has_data() for ax in axes) for axes in drawn), "an empty figure"


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_PROCESSES)
def test_example_with_processes_runs(name):
    flags = ["-W", "error", "-W", "ignore:FigureCanvasAgg is non-interactive:UserWarning"]
    run = subprocess.run(
        [sys.executable, *flags, str(EXAMPLES / name)],
        env={**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "workers: 2" in run.stdout
