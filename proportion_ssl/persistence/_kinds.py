"""Tell the files of ``proportion_ssl.save`` and ``SlideSegmenter.save`` apart, without torch."""

import json
import zipfile
from pathlib import Path

KEY = "proportion_ssl"
"""Entry of the header of a file of ``proportion_ssl.save``, in the safetensors format."""

MAX_HEADER = 2**24  # bytes

SEGMENTER_PART = "segmenter.json"
"""Description in a file of ``SlideSegmenter.save``, a zip archive."""


def is_segmenter_file(path: Path) -> bool:
    """Whether ``SlideSegmenter.save`` wrote a file; only the list of its parts is read."""
    if not path.is_file():  # a device may have no end
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return SEGMENTER_PART in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def is_classifier_file(path: Path) -> bool:
    """Whether ``proportion_ssl.save`` wrote a file; only its header is read."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= MAX_HEADER else b""
    try:
        return KEY in json.loads(header)["__metadata__"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
