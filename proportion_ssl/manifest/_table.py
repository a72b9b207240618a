"""Read text tables saved by spreadsheet programs: encoding, separator, header and rows."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

AS_CSV = "in a spreadsheet program, save it as 'CSV UTF-8'."
_KINDS = {
    b"PK\x03\x04": "an Excel or OpenDocument file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}


def read_table(
    path: Path, known: Collection[str]
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Read the header of a text table, and iterate over its rows.

    Parameters
    ----------
    path : Path
    known : collection of str
        Column names in lower case, used to detect the separator.

    Returns
    -------
    header : list of str
        Stripped names of the columns, without empty ones at the end.
    rows : iterator of (int, list of str)
        First line of the row, counted from 1, and its stripped cells, as many as in the header. Empty rows
        are skipped.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not UTF-8 text or is empty. While iterating: if a row has more fields than the header,
        or a quotation mark is not closed.
    """
    content = _content(path)
    first = _lines(content).readline().strip().strip('"')
    skipped, delimiter = 0, None
    if first.lower().startswith("sep="):
        skipped, delimiter = 1, first[4:5] or "\t"
    else:
        headers = {mark: next(_records(path, content, mark, 0), (0, []))[1] for mark in ",;\t"}
        known = set(known)
        delimiter = max(
            headers,
            key=lambda mark: (len(known & set(map(str.lower, headers[mark]))), len(headers[mark])),
        )
    records = _records(path, content, delimiter, skipped)
    found = next(records, None)
    if found is None:
        raise ValueError(f"{path} is empty; a manifest has a header and one row per slide.")
    header = found[1]
    while header and not header[-1]:  # spreadsheets pad with empty columns
        header.pop()
    return header, _fitted(path, records, len(header), delimiter)


def _content(path: Path) -> bytes:
    """Content of the file, checked to be UTF-8 text."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"file not found: {path}; give the path of a CSV file.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; give the path of a CSV file.") from None
    for start, kind in _KINDS.items():
        if content.startswith(start):
            raise ValueError(f"{path} is {kind}, not UTF-8 text; {AS_CSV}")
    if b"\0" in content:
        raise ValueError(f"{path} holds zero bytes and is not UTF-8 text; {AS_CSV}")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}, line {line}); {AS_CSV}"
        ) from error
    return content


def _lines(content: bytes) -> io.TextIOWrapper:
    """Text for the module `csv`: line ends unchanged, so that those within quotes are kept."""
    return io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")


def _records(
    path: Path, content: bytes, delimiter: str, skipped: int
) -> Iterator[tuple[int, list[str]]]:
    """Line and stripped cells of every row with text, after `skipped` lines."""
    lines = _lines(content)
    for _ in range(skipped):
        lines.readline()
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + skipped + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {line} cannot be read as a table ({error}). Is a quotation mark not"
                " closed, or in the middle of a field?"
            ) from error
        if row is None:
            return
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield line, cells


def _fitted(
    path: Path, records: Iterator[tuple[int, list[str]]], width: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """Rows padded to `width` cells."""
    for line, cells in records:
        if len(cells) != width:
            if any(cells[width:]):
                raise ValueError(
                    f"{path}, line {line} has {len(cells)} fields but the header has {width};"
                    f" fields are separated by {delimiter!r}: quote those that contain it."
                )
            cells = (cells + [""] * width)[:width]
        yield line, cells
