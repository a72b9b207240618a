"""Feature files in the layout of CLAM and TRIDENT."""

import hashlib
import os

import h5py
import numpy as np
import pytest

from proportion_ssl.slides.features.files import (
    FeatureFileError,
    file_fingerprint,
    read_features,
    write_features,
)
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
    with pytest.raises(FileNotFoundError, match=r"no feature file .*none\.h5"):
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
        (np.ones((3, 4)), np.ones((3, 2)), {"patch_size_level0": -1}, "patch size at level 0"),
        (np.ones((3, 4)), np.ones((3, 2)), {"patch_size_level0": "big"}, "patch size at level 0"),
        (np.ones((3, 4)), np.ones((3, 2)), {**CLAM, "downsample": "big"}, "patch size at level 0"),
    ],
)
def test_wrong_content(tmp_path, features, coords, attributes, message):
    path = foreign(tmp_path / "a.h5", attributes, features, coords)
    with pytest.raises(FeatureFileError, match=rf"a\.h5: .*{message}"):
        read_features(path)


def test_datasets_missing_or_groups(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["feats"] = np.ones((3, 4))
    with pytest.raises(FeatureFileError, match=r"no dataset 'features' \(it has \['feats'\]\)"):
        read_features(path)
    with h5py.File(path, "w") as file:
        file.create_group("features")
    with pytest.raises(FeatureFileError, match="no dataset 'features'"):
        read_features(path)


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


# --- fingerprint -----------------------------------------------------------------------------


def test_fingerprint(tmp_path):
    path = tmp_path / "a.bin"
    data = bytearray(np.random.default_rng(0).bytes(5 * 2**20))
    path.write_bytes(data)
    whole = file_fingerprint(path)
    by_hand = hashlib.sha256(f"{5 * 2**20}\0".encode() + data[: 2**20] + data[-(2**20) :])
    assert whole == by_hand.hexdigest()
    for change in (0, -1):
        other = data.copy()
        other[change] ^= 1
        path.write_bytes(other)
        assert file_fingerprint(path) != whole
    path.write_bytes(data[:-1])
    assert file_fingerprint(path) != whole
    path.write_bytes(b"")
    assert len(file_fingerprint(path)) == 64
