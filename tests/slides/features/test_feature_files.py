"""Feature files in the layout of CLAM and TRIDENT."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from proportion_ssl.slides.features.files import (
    FeatureFileError,
    check_features,
    locate_features,
    read_features,
    write_features,
)
from proportion_ssl.slides.features.sequence import FeatureSequence
from proportion_ssl.slides.grid import patch_grid

SETTINGS = {"model": "mobilenet_v2", "weights": "ab" * 32, "slide": "cd" * 32}


@pytest.fixture
def grid():
    return patch_grid((4000, 3000), mpp=0.499, magnification=10)


@pytest.fixture
def features(grid):
    return np.random.default_rng(0).normal(size=(len(grid), 16)).astype(np.float32)


@pytest.fixture
def path(tmp_path, grid, features):
    path = tmp_path / "slide_1.h5"
    write_features(
        path, features, grid, name="slide_1", dimensions=(4000, 3000), mpp=0.499, settings=SETTINGS
    )
    return path


def test_round_trip(path, grid, features):
    stored = read_features(path)
    np.testing.assert_array_equal(stored.features, features)
    np.testing.assert_array_equal(stored.locations, grid.locations)
    assert stored.features.dtype == np.float32 and stored.locations.dtype == np.int64
    assert len(stored) == len(grid)
    assert stored.name == "slide_1"
    assert stored.settings == {**SETTINGS, "patch_size": [224, 224], "patch_mpp": 1.0}


def test_the_slide_is_known_without_its_features(path, grid, features):
    stored = read_features(path, columns=slice(0))
    assert stored.features.shape == (len(grid), 0) and stored.n_features == 16
    assert (stored.dimensions, stored.mpp, stored.origin) == ((4000, 3000), (0.499, 0.499), (0, 0))
    np.testing.assert_array_equal(stored.grid.boxes, grid.boxes)
    assert (stored.name, stored.encoder) == ("slide_1", "mobilenet_v2")
    with open(path, "r+b") as file:  # which are not read
        file.seek(-5, os.SEEK_END)
        file.write(b"\xff")
    assert len(read_features(path, columns=slice(0))) == len(grid)


@pytest.mark.parametrize("columns", [slice(4, 12), slice(None, None, 3), slice(-2, None)])
def test_columns(path, features, columns):
    stored = read_features(path, columns=columns)
    np.testing.assert_array_equal(stored.features, features[:, columns])


def test_pixels_that_are_not_square(tmp_path, grid, features):
    facts = {"name": "a", "dimensions": (4000, 3000), "settings": {}}
    write_features(tmp_path / "a.h5", features, grid, mpp=(0.4, 0.9), origin=(7, 9), **facts)
    stored = read_features(tmp_path / "a.h5")
    assert (stored.mpp, stored.origin) == ((0.4, 0.9), (7, 9))
    assert stored.attributes["level0_magnification"] == pytest.approx(10 / 0.6)


def test_layout_is_tridents(path, grid):
    with h5py.File(path) as file:
        assert file["features"].shape == (len(grid), 16) and file["features"].dtype == np.float32
        assert file["coords"].shape == (len(grid), 2) and file["coords"].dtype == np.int64
        attributes = dict(file["coords"].attrs)
    assert attributes == {
        "name": "slide_1",
        "patch_size": 224,
        "patch_size_level0": 449,
        "level0_magnification": pytest.approx(20.04, abs=0.01),
        "target_magnification": 10.0,
        "overlap": 0,
        "level0_width": 4000,
        "level0_height": 3000,
    }


def test_overlap_is_recorded(tmp_path):
    grid = patch_grid((4000, 3000), mpp=0.499, magnification=10, overlap=56)
    arguments = {"name": "a", "dimensions": (4000, 3000), "mpp": 0.499, "settings": {}}
    write_features(tmp_path / "a.h5", np.ones((len(grid), 2)), grid, **arguments)
    assert read_features(tmp_path / "a.h5").attributes["overlap"] == 56
    write_features(tmp_path / "b.h5", np.ones((1, 2)), grid[3], **arguments)
    assert read_features(tmp_path / "b.h5").attributes["overlap"] == 0


def foreign(path, attributes, features=None, coords=None):
    with h5py.File(path, "w") as file:
        features = np.ones((3, 4), np.float32) if features is None else features
        file["features"] = features
        file["coords"] = np.arange(6).reshape(3, 2) * 512 if coords is None else coords
        file["coords"].attrs.update(attributes)
    return path


TRIDENT = {
    "patch_size": 512,
    "patch_size_level0": 1024,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "TCGA-05-4244",
    "level0_width": 60000,
    "level0_height": 40000,
    "savetodir": "/data/trident/20x_512px_0px_overlap",
}
CLAM = {
    "patch_size": 256,
    "patch_level": 1,
    "downsample": (4.0, 4.0),
    "downsampled_level_dim": np.array([15000, 10000]),
    "level_dim": np.array([15000, 10000]),
    "name": "TCGA-05-4244",
    "save_path": "/data/clam/patches",
}


@pytest.mark.parametrize("attributes", [TRIDENT, CLAM], ids=["trident", "clam"])
def test_both_dialects(tmp_path, attributes):
    stored = read_features(foreign(tmp_path / "a.h5", attributes))
    assert stored.patch_size_level0 == 1024
    assert stored.name == "TCGA-05-4244"
    assert stored.attributes["patch_size"] == attributes["patch_size"]
    assert stored.settings is None
    np.testing.assert_array_equal(stored.locations[1], [1024, 1536])


def test_clam_feature_files_have_no_attributes(tmp_path):
    stored = read_features(foreign(tmp_path / "a.h5", {}))
    assert stored.patch_size_level0 is None and stored.name is None


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_other_number_types_become_float32(tmp_path, dtype):
    stored = read_features(foreign(tmp_path / "a.h5", {}, np.ones((3, 4), dtype)))
    assert stored.features.dtype == np.float32


@pytest.mark.parametrize("columns", [None, slice(1, 3), slice(0)])
@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
def test_columns_of_other_programs(tmp_path, columns, shape):
    features = np.arange(12, dtype=np.float32).reshape(3, 4)
    stored = read_features(foreign(tmp_path / "a.h5", {}, features.reshape(shape)), columns=columns)
    np.testing.assert_array_equal(stored.features, features[:, columns or slice(None)])
    assert stored.n_features == 4


def test_facts_of_other_programs(tmp_path):
    path = foreign(tmp_path / "a.h5", TRIDENT)
    with h5py.File(path, "a") as file:
        file.attrs["extractor"] = "uni2-h"
        file["features"].attrs["precision"] = "float16"
    stored = read_features(path)
    assert stored.encoder == "uni2-h"
    assert stored.attributes["precision"] == "float16" and stored.attributes["overlap"] == 0
    assert stored.dimensions == (60000, 40000)
    assert stored.mpp is None and stored.origin is None, "a magnification is no resolution"


@pytest.mark.parametrize("place", ["/", "features", "coords"])
@pytest.mark.parametrize("key", ["encoder", "extractor", "patch_encoder", "model_name"])
def test_the_encoder_is_kept_wherever_it_stands(tmp_path, place, key):
    path = foreign(tmp_path / "a.h5", {})
    with h5py.File(path, "a") as file:
        file[place].attrs[key] = np.bytes_(b"conch_v15")
    stored = read_features(path)
    assert stored.encoder == stored.attributes[key] == "conch_v15"


def test_batch_of_one_bag_is_unpacked(tmp_path):
    stored = read_features(foreign(tmp_path / "a.h5", {}, np.ones((1, 3, 4), np.float32)))
    assert stored.features.shape == (3, 4)


@pytest.mark.parametrize("n_patches", [0, 1, 3])
def test_leading_axis_of_published_features(tmp_path, n_patches):
    """Collections of foundation model features keep (1, n, d) features and (1, n, 2) coords."""
    features = np.random.default_rng(0).normal(size=(1, n_patches, 1536)).astype(np.float32)
    coords = np.arange(2 * n_patches).reshape(1, n_patches, 2)
    stored = read_features(foreign(tmp_path / "a.h5", {}, features, coords))
    np.testing.assert_array_equal(stored.features, features[0])
    np.testing.assert_array_equal(stored.locations, coords[0])


def test_feature_files_of_trident_from_coords_of_clam(tmp_path):
    """They keep patch_size and patch_level; at level 0 these give the size at level 0."""
    stored = read_features(foreign(tmp_path / "a.h5", {"patch_size": 256, "patch_level": 0}))
    assert stored.patch_size_level0 == 256
    stored = read_features(foreign(tmp_path / "b.h5", {"patch_size": 256, "patch_level": 1}))
    assert stored.patch_size_level0 is None, "the downsample of level 1 is not known"


def test_names_as_bytes(tmp_path):
    stored = read_features(foreign(tmp_path / "a.h5", {"name": np.bytes_(b"slide")}))
    assert stored.name == "slide"


def test_no_patches(tmp_path, grid):
    write_features(
        tmp_path / "a.h5",
        np.zeros((0, 8)),
        grid[:0],
        name="a",
        dimensions=(4000, 3000),
        mpp=0.499,
        settings={},
    )
    assert read_features(tmp_path / "a.h5").features.shape == (0, 8)


# --- expected settings -----------------------------------------------------------------------


def test_expected_settings(path):
    read_features(path, expected=SETTINGS)
    read_features(path, expected={"patch_mpp": 1, "patch_size": (224, 224)})
    with pytest.raises(FeatureFileError, match=r"slide_1\.h5: .*weights is 'abab.*expected 'ff'"):
        read_features(path, expected={**SETTINGS, "weights": "ff"})
    with pytest.raises(FeatureFileError, match="stain is None, expected 'macenko'"):
        read_features(path, expected={"stain": "macenko"})
    with pytest.raises(FeatureFileError, match="stain is None, expected None"):
        read_features(path, expected={"stain": None})


def test_expected_of_foreign_files(tmp_path):
    with pytest.raises(FeatureFileError, match="carries no settings of this package"):
        read_features(foreign(tmp_path / "a.h5", TRIDENT), expected=SETTINGS)


@pytest.mark.parametrize("settings", [{"a": float("nan")}, {"a": {1, 2}}, {"a": np.ones(2)}])
def test_settings_must_be_json(tmp_path, grid, features, settings):
    arguments = {"name": "a", "dimensions": (4000, 3000), "mpp": 0.499, "settings": settings}
    with pytest.raises(ValueError, match="only what JSON can"):
        write_features(tmp_path / "a.h5", features, grid, **arguments)
    assert os.listdir(tmp_path) == []


# --- broken files ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.9, 0.99, 0.999])
def test_truncated_at_any_place(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FeatureFileError, match=r"slide_1\.h5: .*truncated"):
        read_features(path)


def test_not_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"PK\x03\x04 this is a .pt file" * 100)
    with pytest.raises(FeatureFileError, match="not a readable HDF5 file"):
        read_features(path)
    with pytest.raises(FileNotFoundError, match=r"feature file not found: .*none\.h5"):
        read_features(tmp_path / "none.h5")


def test_not_written_to_its_end(path):
    with h5py.File(path, "a") as file:
        del file.attrs["proportion_ssl_n_patches"]
    with pytest.raises(FeatureFileError, match="not written to its end"):
        read_features(path)


def test_settings_changed_by_hand(path):
    with h5py.File(path, "a") as file:
        text = file.attrs["proportion_ssl_settings"]
        file.attrs["proportion_ssl_settings"] = text.replace("mobilenet_v2", "mobilenet_v3")
    with pytest.raises(FeatureFileError, match="do not agree with their hash"):
        read_features(path)


@pytest.mark.parametrize(
    ("features", "coords", "attributes", "message"),
    [
        (np.ones((3, 4)), np.ones((2, 2)), {}, r"shape \(3, 4\) and coords of shape \(2, 2\)"),
        (np.ones((3, 4)), np.ones((3, 3)), {}, r"coords of shape \(3, 3\)"),
        (np.ones(3), np.ones((3, 2)), {}, r"'features' has shape \(3,\)"),
        (np.ones((2, 3, 4)), np.ones((3, 2)), {}, "expected .n_patches, n_features"),
        (np.full((3, 4), np.nan), np.ones((3, 2)), {}, "patch 0 has NaN or infinite"),
        (np.ones((3, 4)), np.full((3, 2), np.nan), {}, "coords of NaN or beyond any slide"),
        (np.ones((3, 4)), np.full((3, 2), -np.inf), {}, "coords of NaN or beyond any slide"),
        (np.ones((3, 4)), np.full((3, 2), 2**62), {}, "coords of NaN or beyond any slide"),
        (np.ones((1, 3, 4)), np.ones((2, 3, 2)), {}, r"coords of shape \(2, 3, 2\)"),
        (np.array([[b"a"] * 4] * 3), np.ones((3, 2)), {}, "a table of numbers"),
        (np.ones((3, 4)), np.ones((3, 2)), {"patch_size_level0": -1}, "'patch_size_level0' is -1"),
        (
            np.ones((3, 4)),
            np.ones((3, 2)),
            {"patch_size_level0": "big"},
            "'patch_size_level0' is 'big'",
        ),
        (np.ones((3, 4)), np.ones((3, 2)), {**CLAM, "downsample": "big"}, "'downsample' is 'big'"),
        (np.ones((3, 4)), np.full((3, 2), 0.5), {}, r"fractions, such as \[0.5, 0.5\] of patch 0"),
        (
            np.ones((2, 4)),
            [[0, 0], [256.7, 0]],
            {},
            r"fractions, such as \[256.7, 0.0\] of patch 1",
        ),
        (np.ones((2, 4)), [[0, 0], [1e-9, 0]], {}, "fractions"),
        (np.ones((3, 4)), np.ones((3, 2)), {"units": np.bytes_(b"mm")}, "coords are in 'mm'"),
        (
            np.ones((2, 4)),
            [[0, 0], [0, 40000]],
            TRIDENT,
            r"patch 1 lie beyond the slide of 60000 x",
        ),
        (np.ones((2, 4)), [[60000, 0], [0, 0]], TRIDENT, "patch 0 lie beyond"),
        (np.ones((3, 4)), [[0, 0], [1, 0], [1, 2]], {}, None),
        (np.ones((3, 4)), [[0, 0], [1, 0], [1, 1]], TRIDENT, "not cells of a grid"),
        (np.ones((3, 4)), np.ones((3, 2)), {**TRIDENT, "level0_width": 0}, "expected positive"),
        (
            np.ones((3, 4)),
            np.ones((3, 2)),
            {**TRIDENT, "level0_width": "wide"},
            "expected positive",
        ),
    ],
)
def test_wrong_content(tmp_path, features, coords, attributes, message):
    path = foreign(tmp_path / "a.h5", attributes, features, np.asarray(coords))
    if message is None:
        np.testing.assert_array_equal(read_features(path).locations, coords)
        return
    with pytest.raises(FeatureFileError, match=rf"a\.h5: .*{message}"):
        read_features(path)


@pytest.mark.parametrize("place", ["/", "features", "coords"])
def test_a_unit_wherever_it_stands(tmp_path, place):
    path = foreign(tmp_path / "a.h5", {}, coords=np.arange(6.0).reshape(3, 2) * 256)
    with h5py.File(path, "a") as file:
        file[place].attrs["unit"] = "px"
    assert read_features(path).locations[2].tolist() == [1024, 1280]
    with h5py.File(path, "a") as file:
        file[place].attrs["unit"] = "\N{MICRO SIGN}m"
    assert read_features(path).locations is None, "without mpp= they are not known in pixels"
    assert read_features(path, mpp=0.5).locations[2].tolist() == [2048, 2560]


def test_datasets_missing_or_groups(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["vectors"] = np.ones((3, 4))
    with pytest.raises(FeatureFileError, match=r"no dataset 'features' \(it has \['vectors'\]\)"):
        read_features(path)
    with h5py.File(path, "w") as file:
        file.create_group("features")
    with pytest.raises(FeatureFileError, match="no dataset 'features'"):
        read_features(path)


CHANGES = {
    "features": lambda file: file["features"].write_direct(file["features"][...] + 1e-7),
    "coords": lambda file: file["coords"].__setitem__((3, 0), 5),
    "boxes": lambda file: file["boxes"].__setitem__((3, 0), 5),
    "cells": lambda file: file["cells"].__setitem__((3, 0), 5),
    "shape": lambda file: file["cells"].attrs.__setitem__("shape", (90, 90)),
    "name": lambda file: file["coords"].attrs.__setitem__("name", "slide_2"),
    "size": lambda file: file["coords"].attrs.__setitem__("patch_size_level0", 450),
    "mpp": lambda file: file["boxes"].attrs.__setitem__("level0_mpp", (0.5, 0.5)),
    "more": lambda file: file["coords"].attrs.__setitem__("more", 1),
    "digests": lambda file: file["proportion_ssl_features_sha256"].__setitem__((0, 0), 1),
    "checksum": lambda file: file.attrs.__delitem__("proportion_ssl_sha256"),
    "windows": lambda file: file.__delitem__("boxes"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_after_it_was_written(path, change):
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(FeatureFileError, match=r"slide_1\.h5: .*make it again"):
        read_features(path)
    with pytest.raises(FeatureFileError, match=r"slide_1\.h5: .*make it again"):
        check_features(path, locate_features(path))


def test_a_file_of_an_earlier_version(path):
    with h5py.File(path, "a") as file:
        del file.attrs["proportion_ssl_sha256"], file["proportion_ssl_features_sha256"]
    with pytest.raises(FeatureFileError, match=r"has no checksums.*; make it again"):
        read_features(path)


def contents(path):
    """All that is read from a file, as one text; or None if it is refused."""
    try:
        stored = read_features(path)
        sequence = FeatureSequence([path])[...]
    except FeatureFileError:
        return None
    assert np.array_equal(sequence, stored.features)
    facts = {key: value for key, value in vars(stored).items() if key != "grid"}
    arrays = (stored.features, stored.locations, stored.grid.boxes, stored.grid.cells)
    return repr(sorted(facts.items())) + "".join(array.tobytes().hex() for array in arrays)


@pytest.mark.slow
def test_flipped_bits(path):
    """Every flip is noticed, or changes nothing; benchmarks/faults/bit_flips.py does more of them."""
    whole, expected = path.read_bytes(), contents(path)
    bits = np.random.default_rng(0).choice(8 * len(whole), 150, replace=False)
    refused = 0
    for bit in bits.tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = contents(path)
        assert found in (None, expected), bit
        refused += found is None
    assert refused > 75


def test_blocks_of_any_length_have_the_same_checksums(tmp_path, grid):
    grid = patch_grid((40000, 30000), mpp=0.499, magnification=10)[:333]
    features = np.random.default_rng(0).normal(size=(333, 3)).astype(np.float32)
    facts = {"name": "a", "dimensions": (40000, 30000), "mpp": 0.499, "settings": {}}
    files = []
    for n, cuts in enumerate(([], [1, 2, 65, 66, 200], range(50, 333, 50), [64, 128])):
        files.append(tmp_path / f"{n}.h5")
        write_features(files[-1], iter(np.split(features, cuts)), grid, **facts)
    assert len({file.read_bytes() for file in files}) == 1
    np.testing.assert_array_equal(read_features(files[1]).features, features)
    assert len(locate_features(files[0]).digests) == 6


FULL_DISK = """
import resource, sys
import numpy as np
from proportion_ssl.slides import patch_grid, write_features
grid = patch_grid((9000, 7000), mpp=0.5, magnification=10)
facts = {"name": "a", "dimensions": (9000, 7000), "mpp": 0.5, "settings": {"text": "x" * 3000}}
features = np.ones((len(grid), 64))
write_features(sys.argv[1], features, grid, **facts)
import os
size = os.path.getsize(sys.argv[1])
no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
for share in np.linspace(0.001, 0.999, 40):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * share), no_limit[1]))
    try:
        write_features(sys.argv[1], features, grid, **facts)
    except OSError:
        continue
    raise SystemExit(f"no error at {share} of the file")
print("ended by itself")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_is_an_error_wherever_it_strikes(tmp_path):
    """HDF5 itself may end the process if it cannot write when it closes a file."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "ended by itself\n"), run.stderr
    assert os.listdir(tmp_path) == ["a.h5"]
    assert read_features(tmp_path / "a.h5").n_features == 64


def test_claimed_size_is_not_allocated(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("features", shape=(2**40, 1024), dtype="f4", chunks=(1, 1024))
        file["coords"] = np.ones((3, 2))
    assert path.stat().st_size < 100_000
    with pytest.raises(FeatureFileError, match="claims 1,125,899,906,842,624 values"):
        read_features(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.ones((3, 4))}, "one row per patch"),
        ({"features": np.ones(40)}, "one row per patch"),
        ({"features": None}, "one row per patch"),
        ({"mpp": 0.0}, "mpp must be positive"),
        ({"mpp": float("nan")}, "mpp must be positive"),
    ],
)
def test_bad_arguments(tmp_path, grid, features, changes, message):
    arguments = {"name": "a", "dimensions": (4000, 3000), "mpp": 0.5, "settings": {}}
    arguments |= {"features": features, **changes}
    with pytest.raises(ValueError, match=message):
        write_features(tmp_path / "a.h5", grid=grid, **arguments)
    assert os.listdir(tmp_path) == []


def test_features_that_are_not_finite_name_the_patch(tmp_path, grid, features):
    features[5, 3] = np.inf
    with pytest.raises(ValueError, match="patch 5 of slide a has NaN or infinite"):
        write_features(
            tmp_path / "a.h5",
            features,
            grid,
            name="a",
            dimensions=(4000, 3000),
            mpp=0.5,
            settings={},
        )


def test_failed_write_keeps_the_old_file(path, grid, features, monkeypatch):
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(h5py.File, "flush", fail)
    with pytest.raises(OSError, match="disk full"):
        write_features(
            path, features * 2, grid, name="b", dimensions=(1, 1), mpp=1.0, settings=SETTINGS
        )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["slide_1.h5"]
