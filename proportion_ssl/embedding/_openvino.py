"""Run a network in OpenVINO on numpy arrays; needs no torch."""

import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import joblib
import numpy as np

TOLERANCE = 1e-4
"""Largest accepted difference from the original network, relative to its largest value."""


class NotInstalledError(ImportError):
    """OpenVINO is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "OpenVINO is not installed. Install it with: pip install proportion_ssl[fast]"
        )


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Within the block, import OpenVINO without its telemetry.

    With telemetry, importing OpenVINO sends a report to its developers and writes to the home directory.
    Slides are often confidential, and their machines offline.
    """
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # marks it as not installed
    try:
        yield
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]


def import_openvino() -> Any:
    """Import the module ``openvino``.

    Raises
    ------
    NotInstalledError
        If OpenVINO is not installed.
    """
    try:
        with without_telemetry():
            import openvino
    except ImportError:
        raise NotInstalledError from None
    return openvino


def agree(features: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> bool:
    """Whether features equal the expected ones, within `tolerance` relative to the largest value."""
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    return features.shape == expected.shape and np.allclose(
        features, expected, rtol=0, atol=tolerance * scale, equal_nan=True
    )


class OpenVINOFeatures:
    """A compiled model that processes the rows of a batch separately and in parallel.

    Parameters
    ----------
    model : openvino.Model
        Maps a batch of one image to features (1, d).
    n_threads : int
    """

    def __init__(self, model: Any, n_threads: int):
        openvino = import_openvino()
        compiled = openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 on processors that support it
                "INFERENCE_NUM_THREADS": n_threads,
                "NUM_STREAMS": n_threads,
                # Pinning threads to cores helps if this process uses all cores; parallel processes
                # with fewer threads would all use the same cores.
                "ENABLE_CPU_PINNING": n_threads >= joblib.cpu_count(),
            },
        )
        self.n_features = compiled.output(0).shape[1]
        self.queue = openvino.AsyncInferQueue(compiled, n_threads)
        self.lock = threading.Lock()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        with closing(self.map([batch])) as parts:
            return next(parts)

    def map(self, batches: Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
        """Features of every batch; a batch starts before the previous one is complete."""
        with self.lock:
            self.queue.set_callback(_keep_row)
            started = None
            try:
                for batch in batches:
                    previous, started = started, self._start(np.ascontiguousarray(batch))
                    if previous is not None:
                        yield self._finish(*previous)
                if started is not None:
                    yield self._finish(*started)
            finally:
                self.queue.wait_all()

    def _start(self, batch):
        features = np.empty((len(batch), self.n_features), dtype=np.float32)
        done = np.zeros(len(batch), dtype=bool)
        for row in range(len(batch)):  # blocks while all threads are busy
            place = (features, done, row, batch)  # the batch is not copied, so keep a reference
            self.queue.start_async(batch[row : row + 1], place, share_inputs=True)
        return features, done

    def _finish(self, features, done):
        if not done.all():
            self.queue.wait_all()  # re-raises errors of the rows
        return features


def _keep_row(request, place):
    features, done, row, _ = place
    features[row] = request.get_output_tensor(0).data[0]
    done[row] = True
