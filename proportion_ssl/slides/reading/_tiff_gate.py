"""Choose the reader that decodes a TIFF as its tags say, or give the reason why none does.

Readers are lenient: they take an unknown fourth channel for transparency, ink for light, the red
plane for a gray picture. So the tags decide, by lists of what each reader was found to read right
(the tests write every combination and compare with the pixels that were written).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tifffile

from proportion_ssl.slides.reading._jpeg_tiles import JPEG
from proportion_ssl.slides.reading._tiff_content import TiffContent, TiffImage

LARGEST_SIDE = 20_000
"""Width and height of the largest picture without tiles that is read as a whole into memory."""

PICTURE = "memory"
"""Source name of pictures that are read as a whole into memory."""

_GRAY_INVERTED, _GRAY, _RGB, _PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6
_ASSOCIATED, _UNASSOCIATED = 1, 2  # transparency that is, or is not, multiplied in

# (photometric interpretation, channels, meaning of the extra ones) that come out right
_PLAIN = {(_GRAY, 1, ()), (_RGB, 3, ()), (_RGB, 4, (_UNASSOCIATED,)), (_YCBCR, 3, ())}
_BY_OPENSLIDE = _PLAIN | {(_GRAY_INVERTED, 1, ()), (_RGB, 4, (_ASSOCIATED,)), (_INKS, 4, ())}

_APERIO_JPEG_2000 = (33003, 33005)
_OPENSLIDE_COMPRESSIONS = (1, 5, JPEG, 8, 32773, 32946, 50000)
_COMPRESSION_NAMES = {34712: "JPEG 2000", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"}

_CONVERT = (
    "Convert it to RGB of 8 bits in tiles, for example with libvips (vips tiffsave in.tif out.tif "
    "--tile --pyramid --compression jpeg)"
)
_TIFFFILE_SOURCE = "large_image's source for it (pip install large-image-source-tifffile 'zarr<3')"


def choose_source(
    content: TiffContent, vendor: str | None, is_installed: Callable[[str], bool]
) -> tuple[str, str | None]:
    """Source for a TIFF, and the reason if no source can read it.

    Parameters
    ----------
    content : TiffContent
        Not empty.
    vendor : str or None
        OpenSlide's name for the format; None if it does not know it.
    is_installed : callable
        ``is_installed("tifffile")`` says whether that source of large_image is installed.

    Returns
    -------
    source : str
    reason : str or None
        Follows the name of the slide in a message.
    """
    first = content.images[0]
    if content.ome_pyramid:
        source, need = "tifffile", "is a pyramidal OME-TIFF, which OpenSlide reads in part only"
    elif vendor not in (None, "generic-tiff"):
        return "openslide", None
    elif not first.tiled and max(first.dimensions) <= LARGEST_SIDE:
        return PICTURE, None
    elif not first.tiled:
        width, height = first.dimensions
        source, need = (
            "tifffile",
            f"is stored in strips, not in tiles, and at {width} x {height} pixels is too large to "
            f"be held in memory (at most {LARGEST_SIDE} x {LARGEST_SIDE})",
        )
    elif first.compression not in _OPENSLIDE_COMPRESSIONS:
        source = "tifffile"
        need = f"has {_compression(first)} compression, which OpenSlide does not read"
    else:
        return "openslide", None
    if is_installed(source):
        return source, None
    return source, f"{need}; install {_TIFFFILE_SOURCE}, or convert it. {_CONVERT}."


def refusal(content: TiffContent, vendor: str | None, source: str) -> str | None:
    """Why a source would not decode the file as its tags say; None if it does.

    Parameters
    ----------
    content : TiffContent
        Not empty.
    vendor : str or None
        OpenSlide's name for the format. In formats of scanners, other than Aperio's, OpenSlide
        knows which images belong to the slide; there only the largest is looked at.
    source : str

    Returns
    -------
    reason : str or None
        Follows the name of the slide in a message.
    """
    images = content.images
    if vendor not in (None, "generic-tiff", "aperio"):
        largest = max(images, key=lambda image: image.n_pixels)
        return _pixel_refusal(largest, source)
    if vendor == "aperio":
        levels: list[TiffImage] = [
            image for image in images if image.tiled
        ]  # others: thumbnail, label, macro
        if not levels:
            return f"has no image in tiles. {_CONVERT}."
        others: Sequence[TiffImage] = levels[1:]
    else:
        others = images[1:]
        levels = [images[0], *content.lower]
        levels += [image for image in others if image.tiled and image.reduced]
    reason = _larger_refusal(levels[0], others)
    reason = reason or _stack_refusal(content, levels[0], vendor)
    for image in levels:
        reason = reason or _frame_refusal(image) or _pixel_refusal(image, source)
    return reason


def opening_advice(content: TiffContent, source: str) -> str:
    """Advice for a TIFF that its source cannot open although all its tiles are in the file."""
    kinds = dict.fromkeys(
        f"{image.dimensions[0]} x {image.dimensions[1]} in {_compression(image)} "
        f"{'tiles' if image.tiled else 'strips'}"
        for image in [*content.images, *content.lower]
    )
    listed = ", ".join(list(kinds)[:8])
    advice = f"Its directories could be read, and list: {listed}."
    if source == "tifffile":
        advice += " With zarr 3 that source opens no pyramid: pip install 'zarr<3'."
    return f"{advice} {_CONVERT}."


def _larger_refusal(first, others):
    for image in others:
        if image.n_pixels > first.n_pixels:
            sizes = [f"{w} x {h}" for w, h in (first.dimensions, image.dimensions)]
            return (
                f"begins with an image of {sizes[0]} pixels, but a larger one of {sizes[1]} lies "
                "behind it, which readers do not look for. Write the largest image first."
            )
    return None


def _stack_refusal(content, first, vendor):
    same = [
        image
        for image in content.images
        if image.dimensions == first.dimensions and (image.tiled or vendor != "aperio")
    ]
    n = max(len(same), content.n_described)
    if n == 1:
        return None
    if n == 3 and all(image.samples == 1 for image in same):
        return (
            "holds three gray images of one size, probably red, green and blue, of which only the "
            f"first would be read. {_CONVERT}."
        )
    return (
        f"holds {n} images of full size (focal planes, channels, times, or a mask), of which only "
        "the first would be read. Save the one that is meant as a file of its own."
    )


def _frame_refusal(image):
    if image.depth != 1:
        return f"is a volume of {image.depth} planes. Save one plane as a file of its own."
    if image.orientation not in (0, 1):  # 0 is no orientation, and is written by some
        return (
            f"is turned or mirrored by its orientation tag ({image.orientation}), which some "
            "programs follow and others do not. Save it upright."
        )
    return None


def _pixel_refusal(image: TiffImage, source: str) -> str | None:
    if image.photometric == _PALETTE:
        return (
            "has a color table: it is a label mask, not a slide, and averaging would invent "
            "labels. Read it with read_label_map."
        )
    if image.sample_format != 1:
        formats = {2: "signed integers", 3: "floating-point numbers"}
        what = formats.get(image.sample_format or 0, "no plain unsigned integers")
        return f"has {what} as pixels. {_CONVERT}."
    if image.bits != 8:
        bits = "different numbers of bits" if image.bits is None else _count(image.bits, "bit")
        return f"has {bits} per channel, where only 8 can be read. {_CONVERT}."
    if image.fill_order != 1:
        return f"has its bits in reverse order (FillOrder {image.fill_order}). {_CONVERT}."
    kind = (image.photometric, image.samples, image.extra_samples)
    right = _BY_OPENSLIDE if source in ("openslide", PICTURE) else _PLAIN
    if image.compression == JPEG:
        right = right - {(_INKS, 4, ())}  # inverted or not, depending on the program
    if image.photometric == _YCBCR and image.compression != JPEG:  # a JPEG decoder gives RGB
        known = image.compression in _APERIO_JPEG_2000 or image.subsampling == (1, 1)
        if source != "openslide" or not known:
            right = right - {(_YCBCR, 3, ())}
    if image.photometric == _INKS and image.ink_set != 1:
        right = right - {(_INKS, 4, ())}
    if kind in right:
        return None
    if image.photometric in (_GRAY_INVERTED, _GRAY, _RGB) and image.samples > (
        3 if image.photometric == _RGB else 1
    ):
        meaning: dict[tuple[int, ...], str]
        meaning = {(_ASSOCIATED,): "transparency, multiplied in", (_UNASSOCIATED,): "transparency"}
        what = meaning.get(image.extra_samples, "of a meaning that its tags do not state")
        return (
            f"has {image.samples} channels, the last of them {what}, which "
            f"{_reader(source)} does not show as it is. {_CONVERT}."
        )
    return (
        f"has colors as {_photometric(image)} in {_count(image.samples, 'channel')}, which "
        f"{_reader(source)} does not show as they are. {_CONVERT}."
    )


def _reader(source):
    return "this package" if source == PICTURE else f"large_image's source {source!r}"


def _count(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _photometric(image):
    names = {_GRAY_INVERTED: "gray with white as 0 (MinIsWhite)", _INKS: "inks (CMYK)"}
    names |= {_YCBCR: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
    return names.get(image.photometric) or _name(tifffile.PHOTOMETRIC, image.photometric)


def _compression(image):
    return _COMPRESSION_NAMES.get(image.compression) or _name(
        tifffile.COMPRESSION, image.compression
    )


def _name(kinds, number):
    try:
        return kinds(number).name
    except ValueError:
        return f"number {number}"
