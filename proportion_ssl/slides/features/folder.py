"""Find the feature files of a folder by slide."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.files import is_own_file
from proportion_ssl.slides.features.formats.registry import is_feature_name

CLAM_FOLDERS = ("h5_files", "pt_files")
"""What a folder of features of CLAM holds; the first has coordinates too."""


def find_features(folder: str | PathLike[str]) -> dict[str, Path]:
    """Feature files of a folder by the name of their slide.

    Parameters
    ----------
    folder : str or path-like
        As TRIDENT (``features_ENCODER``), CLAM (that with ``h5_files``, or ``h5_files`` itself), STAMP
        (``EXTRACTOR-HASH``), slideflow, eva or torchmil (``features``) leave it. Folders below are not
        looked into.

    Returns
    -------
    paths : dict of str to Path
        In order of the names: file names without their last suffix.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or has no feature files.
    FeatureFileError
        If two files are of one slide.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("TCGA-05.1.h5", "TCGA-06.2.h5", "thumbnail.jpg"):
    ...     (folder / name).touch()
    >>> list(find_features(folder))
    ['TCGA-05.1', 'TCGA-06.2']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder of features not found: {folder}")
    below = [folder / name for name in CLAM_FOLDERS if (folder / name).is_dir()]
    searched = below[0] if below else folder
    found: dict[str, Path] = {}
    for path in sorted(searched.iterdir()):
        if not is_feature_name(path) or path.name.startswith("."):
            continue
        other = found.setdefault(path.stem, path)
        if other != path:
            raise FeatureFileError(
                f"{searched}: {other.name} and {path.name} are both features of slide {path.stem!r}; keep "
                "one"
            )
    if not found:
        raise FileNotFoundError(
            f"{searched} holds no feature files (.h5, .pt, .npy, .npz); give the folder with one per slide"
        )
    return found


def is_foreign_folder(folder: str | PathLike[str]) -> bool:
    """Whether a folder holds feature files of another program.

    Parameters
    ----------
    folder : str or path-like
        May not exist, or be empty.

    Raises
    ------
    FeatureFileError
        If files of this package lie beside those of another.
    """
    try:
        paths = find_features(folder)
    except FileNotFoundError:
        return False
    own = {path: is_own_file(path) for path in paths.values()}
    if len(set(own.values())) > 1:
        first = {is_own: path for path, is_own in reversed(own.items())}
        raise FeatureFileError(
            f"{folder}: {first[True].name} was written by this package, {first[False].name} by another "
            "program; keep them in separate folders"
        )
    return not next(iter(own.values()))
