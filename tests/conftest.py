"""Shared fixtures: every test starts from the same random state."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from joblib.externals.loky import get_reusable_executor

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")
torch.set_num_threads(1)  # the tests' batches are too small to be worth a second thread


@pytest.fixture(autouse=True)
def _fixed_seeds():
    np.random.seed(0)  # noqa: NPY002 - third-party code may draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _own_processes():
    """Processes of joblib end with the tests of a file.

    One that first ran something small counts as leaking once it imports torch, and leaves, which can block
    for ever.
    """
    yield
    get_reusable_executor(max_workers=1, reuse=True).shutdown(wait=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real H&E patches, slides and weights; tests that need it are skipped without."""
    folder = os.environ.get("PROPORTION_SSL_DATA")
    if not folder:
        pytest.skip("PROPORTION_SSL_DATA is not set: no real slides, patches or weights to test on")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"PROPORTION_SSL_DATA names {folder!r}, which is not a folder")
    return path
