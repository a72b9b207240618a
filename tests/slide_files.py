"""Small slides written by tifffile, for the tests of the reader."""

import numpy as np
import tifffile


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
