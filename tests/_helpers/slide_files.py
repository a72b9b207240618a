"""Small slides written by tifffile, for the tests of the reader."""

import io
import struct

import numpy as np
import tifffile
from PIL import Image


def texture(width, height, seed=0):
    """Smooth blobs and fine noise in pinks: JPEG tiles of it all differ."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = np.zeros((height, width), dtype=np.float32)
    for _ in range(4):
        fx, fy, phase = rng.uniform(0.01, 0.2, 3)
        waves += np.sin(fx * columns + fy * rows + 6 * phase)
    pixels = np.stack([190 + 12 * waves, 110 + 25 * waves, 170 + 15 * waves], axis=-1)
    return np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)


def halve(pixels):
    """Next level of a pyramid: mean of 2 x 2 pixels, odd borders cut."""
    height, width = (n // 2 * 2 for n in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, -1)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)


def aperio_description(pixels, mpp=None, magnification=None):
    height, width = pixels.shape[:2]
    text = f"Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] JPEG/RGB Q=80"
    text += "" if magnification is None else f"|AppMag = {magnification}"
    return text + ("" if mpp is None else f"|MPP = {mpp}")


def write_slide(
    path,
    pixels,
    *,
    mpp=0.5,
    n_levels=1,
    skip=(),
    tile=256,
    aperio=False,
    magnification=None,
    compression="jpeg",
    **options,
):
    """Pyramidal tiled TIFF; `skip` names levels (powers of two) that are left out.

    A generic TIFF keeps `mpp`, one number or (x, y), as resolution tags; `aperio=True` writes
    Aperio's description and, as its scanners do, RGB instead of YCbCr JPEG and a thumbnail.
    """
    options = {"photometric": "rgb", "metadata": None, **options}
    if compression is not None:
        arguments = {"level": 90, "outcolorspace": "rgb"} if aperio else {"level": 90}
        options |= {"compression": compression, "compressionargs": arguments}
    level = pixels
    with tifffile.TiffWriter(path) as tif:
        for i in range(n_levels):
            if i:
                level = halve(level) if pixels.ndim == 3 else halve(level[..., None])[..., 0]
            if i in skip:
                continue
            tags = {"subfiletype": 0 if aperio or i == 0 else 1}
            if aperio:
                tags["description"] = aperio_description(level, mpp, magnification)
            elif mpp is not None:
                both = np.broadcast_to(mpp, 2)
                tags["resolution"] = tuple(float(1e4 / (m * 2**i)) for m in both)
                tags["resolutionunit"] = "CENTIMETER"
            tif.write(level, tile=(tile, tile), **tags, **options)
            if aperio and i == 0:
                step = max(1, pixels.shape[0] // 128)
                small = np.ascontiguousarray(pixels[::step, ::step])
                tif.write(small, photometric="rgb", description="Aperio thumbnail", metadata=None)
    if aperio:
        _unmark(path)
    return str(path)


def _unmark(path):
    """Hide the Adobe segment that says "RGB": Aperio's streams have none, the TIFF tag tells."""
    with tifffile.TiffFile(path) as tif:
        ranges = [
            (offset, count)
            for page in tif.pages
            if page.is_tiled
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    with open(path, "r+b") as file:
        for offset, count in ranges:
            file.seek(offset)
            stream = file.read(count)
            at = stream.find(b"\xff\xee\x00\x0eAdobe")
            if at >= 0:
                file.seek(offset + at)
                file.write(b"\xff\xef")


def stored_pixels(path, page):
    """What a page of a TIFF holds, by tifffile's own decoder."""
    with tifffile.TiffFile(path) as tif:
        return [p for p in tif.pages if p.is_tiled][page].asarray()


def damage_tile(path, index, page=0, keep=0.5):
    """Overwrite the end of a tile's stream with zeros, in place."""
    with tifffile.TiffFile(path) as tif:
        found = [p for p in tif.pages if p.is_tiled][page]
        offset, count = found.dataoffsets[index], found.databytecounts[index]
    kept = int(count * keep)
    with open(path, "r+b") as file:
        file.seek(offset + kept)
        file.write(bytes(count - kept))


def write_ndpi(path, pixels, *, mpp=0.5, magnification=20, n_levels=2):
    """Hamamatsu NDPI: classic TIFF, one JPEG strip per level, Hamamatsu's tags 65420 to 65424.

    Level i is `pixels[:: 2**i, :: 2**i]`; OpenSlide adds levels that the JPEG decoder can scale to.
    """
    with tifffile.TiffWriter(path) as tif:
        for step in 2 ** np.arange(n_levels):
            level = np.ascontiguousarray(pixels[::step, ::step])
            encoded = io.BytesIO()
            Image.fromarray(level).save(encoded, "jpeg", quality=95, subsampling=0)
            tif.write(
                data=iter([encoded.getvalue()]),
                shape=level.shape,
                dtype="uint8",
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(1, 1),
                rowsperstrip=level.shape[0],
                resolution=(1e4 / mpp / step,) * 2,
                resolutionunit="centimeter",
                metadata=None,
                software=None,
                extratags=[
                    (271, "s", 0, "Hamamatsu", True),
                    (65420, "I", 1, 1, True),  # this is an NDPI
                    (65421, "f", 1, magnification / step, True),
                    (65422, "i", 1, 0, True),  # offsets of the slide's center, and focal plane
                    (65423, "i", 1, 0, True),
                    (65424, "i", 1, 0, True),
                ],
            )


def write_mrxs(path, pixels, *, mpp=0.5, magnification=20, tile=256, n_levels=2):
    """3DHISTECH MIRAX: an empty .mrxs, and beside it Slidedat.ini, Index.dat and Data0000.dat.

    Level i is `pixels[:: 2**i, :: 2**i]` in JPEG tiles without overlap, whose sides `pixels` must be
    multiples of at every level.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    path.touch()
    rows, columns = (n // tile for n in pixels.shape[:2])
    start = b"01.02" + b"A" * 32
    data, records = bytearray(start), []
    general = [
        "[GENERAL]",
        f"SLIDE_ID = {'A' * 32}",
        f"IMAGENUMBER_X = {columns}",
        f"IMAGENUMBER_Y = {rows}",
        f"OBJECTIVE_MAGNIFICATION = {magnification}",
        "CameraImageDivisionsPerSide = 1",
        "[HIERARCHICAL]",
        "HIER_COUNT = 1",
        "NONHIER_COUNT = 0",
        "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level",
        f"HIER_0_COUNT = {n_levels}",
    ]
    sections = ["[DATAFILE]", "FILE_COUNT = 1", "FILE_0 = Data0000.dat"]
    for i in range(n_levels):
        general += [f"HIER_0_VAL_{i} = Zoom{i}", f"HIER_0_VAL_{i}_SECTION = LEVEL_{i}"]
        sections += [
            f"[LEVEL_{i}]",
            f"IMAGE_CONCAT_FACTOR = {min(i, 1)}",
            "OVERLAP_X = 0",
            "OVERLAP_Y = 0",
            f"MICROMETER_PER_PIXEL_X = {mpp * 2**i}",
            f"MICROMETER_PER_PIXEL_Y = {mpp * 2**i}",
            "IMAGE_FILL_COLOR_BGR = 16777215",
            f"DIGITIZER_WIDTH = {tile}",
            f"DIGITIZER_HEIGHT = {tile}",
            "IMAGE_FORMAT = JPEG",
        ]
        level, records_of_level = pixels[:: 2**i, :: 2**i], []
        for row in range(rows >> i):
            for column in range(columns >> i):
                window = level[row * tile :, column * tile :][:tile, :tile]
                encoded = io.BytesIO()
                image = Image.fromarray(np.ascontiguousarray(window))
                image.save(encoded, "jpeg", quality=95, subsampling=0)
                number = (row * columns + column) << i
                records_of_level.append((number, len(data), len(encoded.getvalue()), 0))
                data += encoded.getvalue()
        records.append(records_of_level)
    (folder / "Slidedat.ini").write_text("\n".join([*general, *sections]) + "\n")
    (folder / "Data0000.dat").write_bytes(data)

    # Two pointers to lists of pointers; of each level, a page of (tile, offset, length, file).
    root = len(start) + 8
    pages, position = [], root + 4 * n_levels
    pointers = []
    for records_of_level in records:
        pointers.append(position)
        page = struct.pack("<4i", 0, position + 8, len(records_of_level), 0)
        page += b"".join(struct.pack("<4i", *record) for record in records_of_level)
        pages.append(page)
        position += len(page)
    index = start + struct.pack("<2i", root, position) + struct.pack(f"<{n_levels}i", *pointers)
    (folder / "Index.dat").write_bytes(index + b"".join(pages) + bytes(4))
