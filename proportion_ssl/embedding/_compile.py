"""Compile a frozen torch module to a fast function of numpy arrays.

On a CPU the module is exported to OpenVINO, if that is installed. Two things make it fast there: batch norm,
activations and the conversion of the pixels are merged into the convolutions, and every thread works on a
separate image. The activations of one image fit into the cache of its core; those of a batch of 32 do not.
Each row of the result is therefore independent of the other rows.
"""

import copy
import functools
import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from proportion_ssl.embedding._known_features import run_as_given
from proportion_ssl.embedding._openvino import (
    NotInstalledError,
    OpenVINOFeatures,
    agree,
    import_openvino,
    without_telemetry,
)

logger = logging.getLogger(__name__)

_ROWS_PER_THREAD = 8  # of the plain torch fallback; more do not fit into the cache


class _NotCompiledError(Exception):
    """Why a faster form of the module cannot be used."""


def compile_features(
    module: nn.Module, example: np.ndarray, *, precision: str = "auto"
) -> Callable[[np.ndarray], np.ndarray]:
    """Compile a module that will not change to a fast function.

    Parameters
    ----------
    module : torch.nn.Module
        Maps a batch to features (n, d); each row of the result depends only on the same row of the batch. The
        module is not changed, and later changes to it have no effect on the function.
    example : ndarray of shape (n, ...)
        An input batch of any length. All later batches have its type and, apart from the first axis, its
        shape.
    precision : {"auto", "float32"}, default="auto"
        "auto" computes in half precision on a GPU and in float32 on a CPU.

    Returns
    -------
    run : callable
        Maps a batch of any length to features (n, d), float32; ``run.map(batches)`` iterates over many
        batches with less waiting between them. Thread-safe. Runs on the GPU if there is one; otherwise in
        OpenVINO with ``torch.get_num_threads()`` threads, if it is installed and reproduces the features of
        the example within ``TOLERANCE`` (1e-4 of the largest value); otherwise in torch, which is logged once
        per reason.

    Raises
    ------
    ValueError
        If the module does not return features (n, d) for the example.

    Examples
    --------
    >>> double = compile_features(nn.Linear(2, 3), np.zeros((1, 2), dtype=np.float32))
    >>> double(np.ones((5, 2), dtype=np.float32)).shape
    (5, 3)
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    example = np.concatenate([np.roll(example[:1], shift, axis=1) for shift in range(4)])
    expected = run_as_given(module, torch.from_numpy(example)).astype(np.float32)
    if torch.cuda.is_available():
        return _TorchFeatures(module, device="cuda", half=precision == "auto")
    try:
        return _checked(_compile_openvino(module, example), example, expected)
    except _NotCompiledError as reason:
        _log_once(f"Features are computed by plain torch, several times slower: {reason}")
    try:
        return _checked(_TorchFeatures(_fold(module)), example, expected)
    except _NotCompiledError as reason:
        logger.info("Batch norm is not folded into the convolutions: %s", reason)
    return _TorchFeatures(module)


def export_features(module: nn.Module, example: np.ndarray) -> tuple[Any, np.ndarray]:
    """Export a module to OpenVINO, and compute its features of the example.

    Parameters
    ----------
    module : torch.nn.Module
        As in :func:`compile_features`.
    example : ndarray of shape (1, ...)

    Returns
    -------
    model : openvino.Model
        Takes batches of the shape of the example.
    features : ndarray of shape (1, d)
        Features by the original module.

    Raises
    ------
    ValueError
        If the module cannot be exported, or the exported module gives different features.
    """
    import_openvino()
    module = copy.deepcopy(module).eval().requires_grad_(False)
    expected = run_as_given(module, torch.from_numpy(example)).astype(np.float32)
    try:
        model, run = _in_openvino(module, example, n_threads=1)
        _checked(run, example, expected)
    except _NotCompiledError as error:
        raise ValueError(f"The network cannot be exported: {error}") from error
    return model, expected


@functools.cache
def _log_once(message):
    logger.warning(message)


def _checked(run, example, expected):
    """Return `run`, or raise if its features differ from the expected ones."""
    if not agree(run(example), expected):
        raise _NotCompiledError("its features differ from those of the original module.")
    return run


def _fold(module):
    """Fold batch norm into the preceding convolutions."""
    try:
        from torch.fx.experimental.optimization import fuse  # private to torch: may move

        return fuse(module)
    except Exception as error:  # tracing foreign code may raise anything
        raise _NotCompiledError(f"{type(error).__name__}: {_first_line(error)}") from error


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"


class _TorchFeatures:
    """Plain torch: channels last, no autograd; half precision by autocast."""

    def __init__(self, module, device="cpu", half=False):
        self.device = torch.device(device)
        self.module = module.to(self.device, memory_format=torch.channels_last)
        self.half = half

    def __call__(self, batch):
        rows = len(batch)
        if self.device.type == "cpu":
            rows = _ROWS_PER_THREAD * torch.get_num_threads()
        batch = np.require(batch, requirements=["C", "W"])  # torch warns of read-only memory
        parts = torch.from_numpy(batch).split(rows)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.float16, enabled=self.half),
        ):
            features = [self.module(part.to(self.device)).float().cpu() for part in parts]
        return torch.cat(features).numpy()

    def map(self, batches):
        """Features of every batch."""
        return (self(batch) for batch in batches)


def _compile_openvino(module, example):
    """The module in OpenVINO, or _NotCompiledError."""
    return _in_openvino(module, example[:1], torch.get_num_threads())[1]


def _in_openvino(module, example, n_threads):
    """OpenVINO model for batches of this shape and the compiled model, or _NotCompiledError."""
    try:
        import_openvino()
    except NotInstalledError as error:
        raise _NotCompiledError(str(error)) from None
    try:
        with warnings.catch_warnings():  # warnings of the exporter about itself
            warnings.simplefilter("ignore")
            model = _export(module, example)
        return model, OpenVINOFeatures(model, n_threads)
    except Exception as error:  # exporting foreign code may raise anything
        raise _NotCompiledError(
            f"{type(module).__name__} cannot be exported to OpenVINO "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error


def _export(module, example):
    with without_telemetry():
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
        from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose

    with suppress(_NotCompiledError):  # OpenVINO would fold batch norm too,
        module = _fold(module)  # but this leaves fewer layers to export
    with torch.no_grad():
        program = torch.export.export(module, (torch.from_numpy(example),))
    decompositions = torch.export.default_decompositions()
    for operation in ops_to_not_decompose():  # operations that OpenVINO implements
        if operation in decompositions:
            decompositions.pop(operation)
    graph = program.run_decompositions(decompositions).module()
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchFXPythonDecoder(graph)  # the frontend does not keep it alive
    model = frontend.convert(frontend.load(decoder))
    model.reshape(list(example.shape))  # dynamic shapes give wrong values with several streams
    return model
