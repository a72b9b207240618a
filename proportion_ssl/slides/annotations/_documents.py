"""Parse annotation files, with limits on size and nesting."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from proportion_ssl.slides.annotations.regions import MAX_VERTICES, AnnotationError

MAX_BYTES = 128 * 2**20  # of text, after decompression
MAX_XML_DEPTH = 32
RASTERS = {b"\x89PNG": "a PNG", b"II*\x00": "a TIFF", b"MM\x00*": "a TIFF", b"II+\x00": "a TIFF"}


_LIMIT_OF_FIELDS = threading.Lock()

WKT_COLUMNS = ("wkt", "geometry", "location")
"""Columns, in lower case, of which a table of annotations has one."""


class Table(NamedTuple):
    """A table with geometries as text: rows by column name, in lower case."""

    rows: list[dict[str, str]]


def read_document(path: Path) -> Any:
    """Root of an annotation file: an XML ``Element``, a parsed JSON document, or a ``Table``.

    The format is detected by content, not by extension. Raises ``AnnotationError`` for anything else.
    """
    data = _read_bytes(path)
    start = _first_character(data, path)
    if start == "<":
        return _parse_xml(data, path)
    if start in "[{":
        return _parse_json(data, path)
    table = _parse_table(data, path)
    if table is not None:
        return table
    raise AnnotationError(
        f"{path}: neither JSON nor XML (it begins with {data[:12]!r}); give QuPath GeoJSON, ASAP "
        "XML, ImageScope XML, large_image annotation JSON or a table with a column WKT"
    )


def _read_bytes(path: Path) -> bytes:
    with open(path, "rb") as file:
        magic = file.read(4)
        file.seek(0)
        for signature, kind in RASTERS.items():
            if magic == signature:
                raise AnnotationError(f"{path}: is {kind} image; read it with read_label_map")
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                return _bounded(unpacked, path)
        if magic == b"PK\x03\x04":
            return _read_zip(file, path)
        return _bounded(file, path)


def _read_zip(file, path: Path) -> bytes:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [info for info in archive.infolist() if not info.is_dir()]
            if len(names) != 1:
                raise AnnotationError(
                    f"{path}: a zip archive must hold one annotation file, this one has "
                    f"{len(names)}; unpack it"
                )
            with archive.open(names[0]) as unpacked:
                return _bounded(unpacked, path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise AnnotationError(f"{path}: broken zip archive ({error}); copy it again") from error


def _bounded(file, path: Path) -> bytes:
    try:
        data = file.read(MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise AnnotationError(
            f"{path}: the compressed file is truncated or broken ({error}); copy it again"
        ) from error
    if len(data) > MAX_BYTES:
        raise AnnotationError(
            f"{path}: more than {MAX_BYTES / 2**20:.0f} MiB of text; export outlines of regions, "
            "not of single cells"
        )
    return data


def _first_character(data: bytes, path: Path) -> str:
    encoding = json.detect_encoding(data[:8])
    text = data[:4096].decode(encoding, errors="ignore").lstrip("\ufeff \t\r\n")
    if not text:
        raise AnnotationError(f"{path}: the file is empty; export or copy it again")
    return text[0]


def _parse_json(data: bytes, path: Path) -> Any:
    if data.count(b"[") + data.count(b"{") > 2 * MAX_VERTICES:  # 60 bytes of memory each, or more
        raise AnnotationError(
            f"{path}: more than {2 * MAX_VERTICES:,} lists and objects; simplify the outlines"
        )
    try:
        return json.loads(data)  # NaN is accepted: QuPath writes it in measurements
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}: not valid JSON, or truncated: {error.msg} at line {error.lineno}, column "
            f"{error.colno}; export or copy the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except RecursionError as error:
        raise AnnotationError(f"{path}: JSON nested too deeply for an annotation format") from error
    except ValueError as error:  # an integer of thousands of digits
        raise AnnotationError(f"{path}: a number cannot be read: {error}") from error


@contextmanager
def _long_fields() -> Iterator[None]:
    """Allow fields as long as a file; the limit is global and restored afterwards."""
    with _LIMIT_OF_FIELDS:
        before = csv.field_size_limit(MAX_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _parse_table(data: bytes, path: Path) -> Table | None:
    """A text table, if its header names a column of WKT; fields are separated by semicolon, comma or tab."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    first = text.splitlines()[0]
    separator = max(";,\t", key=first.count)
    header = [name.strip().lower() for name in next(csv.reader([first], delimiter=separator))]
    if not set(header) & set(WKT_COLUMNS):
        return None
    at = next(k for k, name in enumerate(header) if name in WKT_COLUMNS)
    with _long_fields():
        lines = list(csv.reader(io.StringIO(text), delimiter=separator))
    rows = []
    for line, cells in enumerate(lines, 1):
        if line == 1 or not any(cells):
            continue
        if len(cells) > len(header) and separator == "," and at == len(header) - 1:
            cells = [*cells[:at], ",".join(cells[at:])]  # WKT that was not quoted
        if len(cells) != len(header):
            raise AnnotationError(
                f"{path}: line {line} has {len(cells)} fields but the header has {len(header)}; quote texts "
                f"that hold {separator!r}"
            )
        rows.append(dict(zip(header, cells, strict=True)))
    return Table(rows)


class _BoundedBuilder(TreeBuilder):
    """Build the tree with limits on depth and number of elements."""

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._depth, self._n_elements = path, 0, 0

    def start(self, tag, attributes):
        self._depth += 1
        self._n_elements += 1
        if self._depth > MAX_XML_DEPTH:
            raise AnnotationError(
                f"{self._path}: XML nested deeper than {MAX_XML_DEPTH}, too deep for an annotation format"
            )
        if self._n_elements > MAX_VERTICES:
            raise AnnotationError(
                f"{self._path}: more than {MAX_VERTICES:,} XML elements; simplify the outlines"
            )
        return super().start(tag, attributes)

    def end(self, tag):
        self._depth -= 1
        return super().end(tag)


def _parse_xml(data: bytes, path: Path) -> Element:
    parser = DefusedXMLParser(target=_BoundedBuilder(path), forbid_dtd=True)
    try:
        parser.feed(data)
        return parser.close()
    except DefusedXmlException as error:
        raise AnnotationError(
            f"{path}: the XML declares a document type or entities, which annotations do not "
            f"need and which may be an attack ({type(error).__name__}); remove the declaration"
        ) from error
    except ParseError as error:
        raise AnnotationError(
            f"{path}: not well-formed XML, or truncated: {error}; export or copy the file again"
        ) from error
    except AnnotationError:
        raise
    except (ValueError, LookupError) as error:  # encodings that expat does not know
        raise AnnotationError(f"{path}: the XML cannot be decoded: {error}") from error
