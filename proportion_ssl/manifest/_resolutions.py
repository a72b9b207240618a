"""Read the microns per pixel of slides from a table."""

from os import PathLike
from pathlib import Path

from proportion_ssl.manifest._cells import read_number
from proportion_ssl.manifest._rows import COARSEST_MPP, FINEST_MPP, stem
from proportion_ssl.manifest._table import read_table

SLIDE_COLUMNS = ("slide", "file name", "filename", "slide_id", "wsi", "image")
MPP_COLUMNS = ("mpp", "microns per pixel", "microns_per_pixel")


def read_resolutions(path: str | PathLike[str]) -> dict[str, float]:
    """Read microns per pixel by slide from a table, such as those of DHMC's lung slides or TRIDENT.

    Parameters
    ----------
    path : path-like
        A text table with a header, read like a manifest. Column of file names: ``slide``, ``File Name``,
        ``slide_id``, ``wsi`` or ``image``. Column of resolutions: ``mpp`` or ``Microns Per Pixel``. Column
        names are case-insensitive; other columns and rows without a resolution are ignored.

    Returns
    -------
    resolutions : dict of str to float
        By slide id, the file name without folder and last suffix. Can be passed as ``mpp`` to
        :func:`~proportion_ssl.slides.embed_slides`.

    Raises
    ------
    FileNotFoundError
        If the table does not exist.
    ValueError
        If a column is missing, a slide has two resolutions, or a cell is not a number from 0.02 to 20; the
        message names the line.

    Examples
    --------
    >>> import tempfile
    >>> table = Path(tempfile.mkdtemp(), "metadata.csv")
    >>> _ = table.write_text("File Name,Class,Microns Per Pixel\\nDHMC_0001.tif,Solid,0.5039\\n")
    >>> read_resolutions(table)
    {'DHMC_0001': 0.5039}
    """
    path = Path(path)
    header, lines = read_table(path, (*SLIDE_COLUMNS, *MPP_COLUMNS))
    names = [name.lower() for name in header]
    at = {}
    for what, wanted in (("of file names", SLIDE_COLUMNS), ("of microns per pixel", MPP_COLUMNS)):
        found = [name for name in wanted if name in names]
        if not found:
            raise ValueError(
                f"{path} has no column {what} ({', '.join(wanted)}); its header reads {header}."
            )
        at[what] = names.index(found[0])
    slide_at, mpp_at = at.values()
    resolutions: dict[str, float] = {}
    for line, cells in lines:
        if not cells[mpp_at]:
            continue
        slide, mpp = stem(cells[slide_at]), read_number(cells[mpp_at])
        if not FINEST_MPP <= mpp <= COARSEST_MPP:
            raise ValueError(
                f"{path}, line {line}: slide {slide!r} has {cells[mpp_at]!r} microns per pixel; give a "
                f"number from {FINEST_MPP:g} to {COARSEST_MPP:g}."
            )
        if resolutions.setdefault(slide, mpp) != mpp:
            raise ValueError(
                f"{path}, line {line}: slide {slide!r} has {mpp:g} microns per pixel, but "
                f"{resolutions[slide]:g} in an earlier line; remove one."
            )
    return resolutions
