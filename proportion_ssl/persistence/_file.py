"""Format of a model file: safetensors, with a description and its hash in the header."""

import hashlib
import json
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes

from proportion_ssl._version import __version__
from proportion_ssl.persistence._errors import ModelFileError
from proportion_ssl.persistence._kinds import KEY, MAX_HEADER

FORMAT = "proportion_ssl model"
VERSION = 2  # increase when files of the current version could no longer be read correctly
READ = (1, 2)  # files of version 1 are upgraded by _version_1


def pack(described: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bytes:
    """Content of the whole file."""
    document = {"format": FORMAT, "version": VERSION, "package": __version__, "model": described}
    text = json.dumps({**document, "sha256": digest(document, tensors)}, allow_nan=False)
    data = tensor_bytes(
        tensors, {KEY: text}
    )  # one key only: safetensors does not fix the order of several
    try:
        check_start(data[:9], len(data))
    except ModelFileError as error:
        raise ValueError(f"The model cannot be saved: {error}") from error
    return data


def digest(document, tensors):
    """Hash of the content of the file, independent of its layout."""
    text = json.dumps(document, allow_nan=False, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def check_start(start, size):
    """Check the start of a file before anything large is read."""
    # 0x80 begins a pickle, but may also be the first byte of a length
    is_pickle = start[:1] == b"\x80" and start[8:9] != b"{"
    if is_pickle or start[:4] == b"PK\x03\x04":
        raise ModelFileError(
            "it looks like a pickle, joblib or torch file, which can run code when it is read; it was not "
            "read. Write the model with proportion_ssl.save."
        )
    if size < 10 or start[8:9] != b"{":
        raise ModelFileError("it is truncated, damaged, or was not written by proportion_ssl.save.")
    length = int.from_bytes(start[:8], "little")
    if length > size - 8:
        raise ModelFileError(
            f"its header should have {length:,} bytes, but the file has {size:,}: it is truncated or damaged."
        )
    if length > MAX_HEADER:
        raise ModelFileError(
            f"its header has {length:,} bytes; more than {MAX_HEADER:,} are not accepted."
        )


def unpack(data):
    """Version, description of the model and tensors, checked against the hash."""
    check_start(data[:9], len(data))
    tensors = read_tensors(data)  # checks header and offsets against the length of the file
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = (header.get("__metadata__") or {}).get(KEY)
    if text is None:
        raise ModelFileError("it is a safetensors file, but not one of proportion_ssl.save.")
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelFileError("it is a safetensors file, but not one of proportion_ssl.save.")
    version, package = document.get("version"), repr(document.get("package"))[:40]
    if type(version) is not int or version not in READ:
        raise ModelFileError(
            f"it has version {repr(version)[:40]} of the format, written by proportion_ssl {package}; "
            f"this is proportion_ssl {__version__}, which reads versions {READ[0]} to {READ[-1]}. Load it "
            "with the version that wrote it."
        )
    if document.pop("sha256", None) != digest(document, tensors):
        raise ModelFileError("its content does not match its hash: it is damaged. Copy it again.")
    return version, document["model"], tensors
