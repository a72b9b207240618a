"""Feature files of TRIDENT, CLAM, STAMP, slideflow, eva, torchmil and NumPy."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from foreign_features import (
    write_clam_coords,
    write_clam_features,
    write_eva,
    write_slideflow,
    write_stamp,
    write_torchmil,
    write_trident,
)

from proportion_ssl.slides import FeatureFileError, FeatureSequence, read_features
from proportion_ssl.slides.features.formats.registry import is_feature_name, read_stored
from proportion_ssl.slides.features.rows import MappedRows, PackedRows, ScatteredRows


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)


@pytest.fixture
def cells():
    """(column, row) of six patches."""
    return np.array([[1, 2], [2, 2], [3, 2], [1, 3], [3, 3], [2, 5]])


# --- each program ----------------------------------------------------------------------------


def test_trident(tmp_path, features, cells):
    stored = read_features(write_trident(tmp_path / "a.b.h5", features, cells * 512))
    np.testing.assert_array_equal(stored.features, features)
    np.testing.assert_array_equal(stored.locations, cells * 512)
    assert (stored.program, stored.encoder, stored.name) == ("TRIDENT", "uni_v1", "a.b")
    assert (stored.patch_size, stored.overlap, stored.patch_size_level0) == (256, 0, 512)
    assert (stored.magnification, stored.level0_magnification) == (20, 40)
    assert (stored.dimensions, stored.mpp) == ((60000, 40000), None)
    np.testing.assert_array_equal(stored.grid.cells, cells[:, ::-1])
    np.testing.assert_array_equal(stored.grid.boxes, np.hstack([cells * 512, cells * 512 + 512]))
    assert (stored.grid.shape, stored.grid.size) == ((40000 // 512, 60000 // 512), (256, 256))
    assert (stored.grid.mpp, stored.stride) == (0.5, 256), "by the nominal magnification"


def test_resolution_of_trident_patches_is_measured_where_that_of_the_slide_is_known(tmp_path):
    path = write_trident(tmp_path / "a.h5", np.ones((1, 2)), [[0, 0]])
    stored = read_features(path, mpp=0.2431)
    assert stored.mpp == (0.2431, 0.2431)
    assert stored.grid.mpp == pytest.approx(512 * 0.2431 / 256)
    with pytest.raises(ValueError, match="mpp must be positive"):
        read_features(path, mpp=0)


@pytest.mark.parametrize("overlap", [64, 128, 200])
def test_overlap_of_trident(tmp_path, features, cells, overlap):
    step = 512 - 2 * overlap
    path = write_trident(tmp_path / "a.h5", features, cells * step, overlap=overlap)
    stored = read_features(path)
    np.testing.assert_array_equal(stored.grid.cells, cells[:, ::-1])
    assert stored.overlap == overlap and stored.stride == 256 - overlap
    assert (np.ptp(stored.grid.boxes[:, ::2], axis=1) == 512).all()


def test_clam_features_with_the_coordinates_of_another_folder(tmp_path, features, cells):
    (tmp_path / "h5_files").mkdir()
    (tmp_path / "patches").mkdir()
    path = write_clam_features(tmp_path / "h5_files" / "a.h5", features, cells * 256)
    stored = read_features(path, mpp=0.5)
    np.testing.assert_array_equal(stored.features, features)
    assert (stored.program, stored.patch_size_level0, stored.grid) == (
        *("features and coords", None),
        None,
    )
    patches = write_clam_coords(tmp_path / "patches" / "a.h5", cells * 256)
    places = read_features(patches, mpp=0.5)
    assert places.features.shape == (6, 0) and places.n_features == 0
    assert (places.program, places.grid.size, places.dimensions) == (
        *("CLAM", (256, 256)),
        (60000, 40000),
    )
    (tmp_path / "pt_files").mkdir()
    tensors = tmp_path / "pt_files" / "a.pt"
    torch.save(torch.from_numpy(features), tensors)
    elsewhere = write_clam_features(tmp_path / "a.h5", features, cells * 256)
    for place, coords in ((path, None), (tensors, None), (path, patches), (elsewhere, patches)):
        stored = read_features(place, mpp=0.5, coords=coords)
        np.testing.assert_array_equal(stored.features, features)
        np.testing.assert_array_equal(stored.grid.boxes, places.grid.boxes)
        assert (stored.name, stored.patch_size, stored.dimensions) == ("a", 256, (60000, 40000))
        assert stored.program == "CLAM"
    assert read_features(elsewhere, mpp=0.5).grid is None


def test_clam_patches_of_a_lower_level(tmp_path, features, cells):
    for name in ("h5_files", "patches"):
        (tmp_path / name).mkdir()
    path = write_clam_features(tmp_path / "h5_files" / "a.h5", features, cells * 1024)
    level = {"patch_level": 1, "downsample": (4.0, 4.0)}
    write_clam_coords(tmp_path / "patches" / "a.h5", cells * 1024, **level)
    stored = read_features(path, mpp=0.25)
    assert (stored.patch_size, stored.patch_size_level0, stored.grid.mpp) == (256, 1024, 1.0)
    np.testing.assert_array_equal(stored.grid.cells, cells[:, ::-1])


def test_coordinates_of_other_patches_are_refused(tmp_path, features, cells):
    for name in ("h5_files", "patches"):
        (tmp_path / name).mkdir()
    path = write_clam_features(tmp_path / "h5_files" / "a.h5", features, cells * 256)
    patches = write_clam_coords(tmp_path / "patches" / "a.h5", cells[::-1] * 256)
    differ = r"h5_files/a\.h5: its own coords differ from those in .*patches/a\.h5: patch 0 is at "
    for coords in (None, patches):
        with pytest.raises(
            FeatureFileError, match=differ + r"\[256, 512\] and \[512, 1280\]; give"
        ):
            read_features(path, coords=coords)
    assert read_features(path, coords=cells * 256).locations.tolist() == (cells * 256).tolist()
    write_clam_coords(patches, cells[:4] * 256)
    with pytest.raises(
        FeatureFileError, match=r"coords of shape \(4, 2\) and type int64 in .*patches"
    ):
        read_features(path)


def test_sizes_in_two_files_must_agree(tmp_path, features, cells):
    path = write_trident(tmp_path / "a.h5", features, cells * 512)
    patches = write_clam_coords(tmp_path / "b.h5", cells * 512)
    message = r"a\.h5: states 512 level-0 pixels as the side of a patch, but .*b\.h5 states 256"
    with pytest.raises(FeatureFileError, match=message):
        read_features(path, coords=patches)


def test_clam_cuts_each_tissue_piece_on_a_lattice_of_its_own(tmp_path):
    first = np.array([[0, 0], [256, 0], [512, 0], [0, 256], [256, 256]]) + (1000, 777)
    second = np.array([[0, 0], [256, 0], [0, 256]]) + (5391, 4025)
    path = write_clam_coords(tmp_path / "a.h5", np.vstack([first, second]))
    stored = read_features(path, mpp=0.5)
    grid = stored.grid
    assert stored.stride == 64
    corner = grid.cells[:, ::-1] * 64 + np.array([1000, 777]) % 64
    assert np.abs(corner - grid.boxes[:, :2]).max() <= 32, "an eighth of a patch"
    np.testing.assert_array_equal(grid.boxes[:, :2], np.vstack([first, second]))


def test_stamp(tmp_path, features, cells):
    path = write_stamp(tmp_path / "a.h5", features, cells * 256.0)
    stored = read_features(path)
    np.testing.assert_array_equal(stored.features, features.astype(np.float16))
    assert stored.features.dtype == np.float32
    assert (stored.locations, stored.grid, stored.encoder) == (None, None, "uni2")
    stored = read_features(path, mpp=0.2526)
    assert stored.patch_size_level0 == pytest.approx(256 / 0.2526)
    np.testing.assert_array_equal(stored.locations, np.floor(cells * 256 / 0.2526 + 0.5))
    np.testing.assert_array_equal(stored.grid.cells, cells[:, ::-1])
    assert stored.grid.mpp == pytest.approx(256 / 224) and stored.stride == 224
    right, left = stored.grid.boxes[0, 2], stored.grid.boxes[1, 0]
    assert right == left, "the border of neighbors is rounded once"


def test_stamp_of_version_2_0(tmp_path, features, cells):
    old = {"tile_size_um": None, "tile_size": 256.0}
    stored = read_features(write_stamp(tmp_path / "a.h5", features, cells * 256.0, **old), mpp=0.5)
    np.testing.assert_array_equal(stored.locations, cells * 512)


def test_slideflow(tmp_path, features, cells):
    path = write_slideflow(tmp_path / "a.b.pt", features, cells * 512 + 256)
    stored = read_features(path, mpp=0.5)
    np.testing.assert_array_equal(stored.features, features)
    np.testing.assert_array_equal(stored.locations, cells * 512)
    assert (stored.program, stored.encoder) == ("slideflow", "UNIFeatures")
    assert read_features(path).locations is None, "the size of a tile in pixels is not known"


@pytest.mark.parametrize("side", [511, 512])
def test_slideflow_rounds_centers_down(tmp_path, side):
    corner = np.array([[0, 0], [side, 7 * side]])
    centers = (corner + side / 2).astype(int)
    path = write_slideflow(tmp_path / "a.pt", np.ones((2, 2)), centers, tile_um=side / 2)
    np.testing.assert_array_equal(read_features(path, mpp=0.5).locations, corner)


def test_slideflow_by_magnification(tmp_path, features, cells):
    path = write_slideflow(tmp_path / "a.pt", features, cells * 448 + 224, tile_um="20x")
    stored = read_features(path, mpp=0.25)
    assert (stored.magnification, stored.patch_size_level0) == (20, 448)
    np.testing.assert_array_equal(stored.locations, cells * 448)


def test_eva(tmp_path, features):
    stored = read_features(write_eva(tmp_path / "7.pt", features, origin="slides/case.7.svs"))
    np.testing.assert_array_equal(stored.features, features)
    assert (stored.program, stored.name, stored.locations) == ("eva", "case.7", None)
    torch.save(torch.ones(3, 4), tmp_path / "more.pt")
    with pytest.raises(FeatureFileError, match=r"more\.pt: .*manifest\.csv does not list it"):
        read_features(tmp_path / "more.pt")


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_torchmil(tmp_path, features, cells, suffix):
    stored = read_features(write_torchmil(tmp_path, "a", features, cells * 512, suffix))
    np.testing.assert_array_equal(stored.features, features)
    np.testing.assert_array_equal(stored.locations, cells * 512)


def test_npz(tmp_path, features, cells):
    np.savez(tmp_path / "a.npz", features=features[np.newaxis], coords=cells * 512)
    stored = read_features(tmp_path / "a.npz")
    np.testing.assert_array_equal(stored.features, features)
    np.testing.assert_array_equal(stored.locations, cells * 512)


def test_coordinates_by_hand(tmp_path, features, cells):
    np.save(tmp_path / "a.npy", features)
    assert read_features(tmp_path / "a.npy").locations is None
    stored = read_features(tmp_path / "a.npy", coords=cells * 9)
    np.testing.assert_array_equal(stored.locations, cells * 9)
    with pytest.raises(FeatureFileError, match=r"a\.npy: coords of shape \(5, 2\)"):
        read_features(tmp_path / "a.npy", coords=cells[:5])
    patches = write_clam_coords(tmp_path / "b.h5", cells * 256)
    assert read_features(tmp_path / "a.npy", coords=patches, mpp=0.25).grid.mpp == 0.25
    own = write_trident(tmp_path / "c.h5", features, cells * 512)
    with pytest.raises(
        FeatureFileError, match=r"c\.h5: its own coords differ from those in coords="
    ):
        read_features(own, coords=cells)
    assert read_features(own, coords=cells * 512).encoder == "uni_v1"


def test_names_of_feature_files():
    named = {"a.h5": True, "a.b.PT": True, "a.npy": True, "a.index.npz": False, "a.svs": False}
    assert {name: is_feature_name(name) for name in named} == named


# --- bad files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"patch_size_level0": 300},
            "contradict each other: patch_size 256 at 20x .* is 512 level-0",
        ),
        ({"patch_size_level0": -1}, "'patch_size_level0' is -1; expected a positive number"),
        ({"patch_size_level0": "big"}, "'patch_size_level0' is 'big'"),
        ({"target_magnification": float("nan")}, "'target_magnification' is nan"),
        ({"patch_size": 255.5, "patch_size_level0": 511}, "'patch_size' is 255.5; expected whole"),
        ({"overlap": 256}, "'overlap' is 256, not less than patch_size 256"),
        ({"level0_width": 0}, "expected positive numbers"),
        ({"level0_width": 900}, r"coords \[1024, 1024\] of patch 1 lie beyond the slide of 900 x"),
        ({"unit": "mm"}, "coords are in 'mm' .attribute 'unit'"),
        ({"unit": "um", "units": "px"}, "coords are in 'um' and 'px'"),
    ],
)
def test_attributes_of_trident_that_cannot_be(tmp_path, features, cells, changes, message):
    path = write_trident(tmp_path / "a.h5", features, cells * 512, **changes)
    with pytest.raises(FeatureFileError, match=rf"a\.h5: .*{message}"):
        read_features(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"downsample": (4.0, 4.0)}, "patch_level is 0, but downsample is 4"),
        ({"patch_size": 0}, "'patch_size' is 0"),
        ({"level_dim": np.array([5, -5])}, "'level_dim' is"),
    ],
)
def test_attributes_of_clam_that_cannot_be(tmp_path, cells, changes, message):
    path = write_clam_coords(tmp_path / "a.h5", cells * 256, **changes)
    with pytest.raises(FeatureFileError, match=rf"a\.h5: .*{message}"):
        read_features(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_size_um": None}, "no attribute 'tile_size_um'"),
        ({"unit": "px"}, "contradict each other: tile_size_um is 256, but the unit is 'px'"),
        ({"tile_size_um": 0.0}, "'tile_size_um' is 0.0"),
    ],
)
def test_attributes_of_stamp_that_cannot_be(tmp_path, features, cells, changes, message):
    path = write_stamp(tmp_path / "a.h5", features, cells * 256.0, **changes)
    with pytest.raises(FeatureFileError, match=rf"a\.h5: .*{message}"):
        read_features(path, mpp=0.5)


def test_missing_sizes_leave_the_grid_out(tmp_path, features, cells):
    """What is not stated is not guessed."""
    path = write_trident(tmp_path / "a.h5", features, cells * 512)
    with h5py.File(path, "a") as file:
        del file["coords"].attrs["patch_size"]
    stored = read_features(path)
    assert stored.grid is None and stored.locations.shape == (6, 2)


def test_nan_is_named(tmp_path, features, cells):
    features[4, 1] = np.nan
    paths = [
        write_trident(tmp_path / "a.h5", features, cells * 512),
        write_stamp(tmp_path / "b.h5", features, cells * 256.0),
        write_slideflow(tmp_path / "c.pt", features, cells * 512),
    ]
    for path in paths:
        with pytest.raises(FeatureFileError, match=rf"{path.name}: patch 4 has NaN"):
            read_features(path)
        sequence = FeatureSequence([path])
        assert sequence[[0, 3, 5]].shape == (3, 8)
        with pytest.raises(FeatureFileError, match=rf"{path.name}: patch 4 has NaN"):
            sequence[2:]


def test_the_same_patch_twice(tmp_path, features, cells):
    cells[3] = cells[1]
    path = write_trident(tmp_path / "a.h5", features, cells * 512)
    with pytest.raises(
        FeatureFileError, match=r"patches 1 and 3 have the same coords \[1024, 1024\]"
    ):
        read_features(path)


def test_fractional_pixels(tmp_path, features, cells):
    np.savez(tmp_path / "a.npz", features=features, coords=cells * 512 + 0.25)
    with pytest.raises(FeatureFileError, match=r"a\.npz: coords have fractions"):
        read_features(tmp_path / "a.npz")


def test_empty_slides(tmp_path):
    stored = read_features(
        write_trident(tmp_path / "a.h5", np.zeros((0, 8), "f4"), np.zeros((0, 2)))
    )
    assert stored.features.shape == (0, 8) and len(stored.grid) == 0
    assert FeatureSequence([tmp_path / "a.h5"]).shape == (0, 8)


class Unpickled:
    """Would run code when it is read."""

    def __reduce__(self):
        return (print, ("code of the file was run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features": torch.ones(2, 3)}, r"holds \['features'\]; expected a tensor"),
        (torch.ones(3), r"features of shape \(3,\)"),
        ([torch.ones(3), torch.ones(4)], "holds list; expected a tensor"),
        (Unpickled(), "not a file of tensors alone"),
    ],
)
def test_tensors_that_are_no_features(tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FeatureFileError, match=rf"a\.pt: {message}"):
        read_features(tmp_path / "a.pt")
    assert "code" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.pt", "a.npy", "a.npz", "a.h5"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_truncated_files(tmp_path, features, cells, name, share):
    path = tmp_path / name
    if name == "a.pt":
        torch.save(torch.from_numpy(features), path)
    elif name == "a.npy":
        np.save(path, features)
    elif name == "a.npz":
        np.savez(path, features=features)
    else:
        write_trident(path, features, cells * 512)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FeatureFileError, match=rf"{name}: "):
        read_features(path)
    with pytest.raises(FileNotFoundError, match="feature file not found"):
        read_features(tmp_path / f"none{path.suffix}")


# --- left in their files ---------------------------------------------------------------------


def packed(path, features, **layout):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, **layout)
        file["coords"] = np.arange(2 * len(features)).reshape(-1, 2) * 512
    return path


def scattered(path, features):
    """Chunks written in another order than that of the rows."""
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "features", features.shape, features.dtype, chunks=(1, features.shape[1])
        )
        for row in np.random.default_rng(1).permutation(len(features)):
            dataset[row] = features[row]
        file["coords"] = np.arange(2 * len(features)).reshape(-1, 2) * 512
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ({}, MappedRows),
        ({"chunks": (1, 5)}, MappedRows),
        ({"chunks": (7, 5)}, MappedRows),
        ("scattered", ScatteredRows),
        ({"chunks": (7, 2)}, PackedRows),
        ({"chunks": (1, 5), "compression": "gzip"}, PackedRows),
        ({"chunks": (7, 5), "compression": "lzf", "shuffle": True}, PackedRows),
        ({"chunks": (40, 5), "compression": "gzip"}, PackedRows),
    ],
)
def test_sequence_of_any_layout(tmp_path, dtype, layout, kind):
    features = np.random.default_rng(0).normal(size=(40, 5)).astype(dtype)
    path = tmp_path / "a.h5"
    scattered(path, features) if layout == "scattered" else packed(path, features, **layout)
    assert isinstance(read_stored(path).rows, kind)
    sequence = FeatureSequence([path])
    expected = features.astype(np.float32)
    for rows in (
        [3],
        [39, 0, 17, 17],
        slice(5, 23),
        slice(None),
        np.arange(40) % 3 == 0,
        np.arange(0),
    ):
        found = sequence[rows]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected[rows])
    np.testing.assert_array_equal(sequence[-1], expected[-1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(sequence))[...], expected)


def test_chunks_that_were_never_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("features", (5, 3), "f4", chunks=(1, 3))
        dataset[2] = 1
    sequence = FeatureSequence([tmp_path / "a.h5"])
    np.testing.assert_array_equal(sequence[...].sum(axis=1), [0, 0, 3, 0, 0])


def test_sequence_of_tensors_and_arrays(tmp_path, features):
    torch.save(torch.from_numpy(features).to(torch.bfloat16), tmp_path / "a.pt")
    np.save(tmp_path / "b.npy", features.astype(np.float16))
    np.savez(tmp_path / "c.npz", features=features)
    sequence = FeatureSequence([tmp_path / name for name in ("a.pt", "b.npy", "c.npz")])
    expected = [torch.from_numpy(features).to(torch.bfloat16).float().numpy()]
    expected += [features.astype(np.float16), features]
    np.testing.assert_array_equal(sequence[...], np.concatenate(expected))


def test_files_that_change_are_refused(tmp_path, features, cells):
    path = write_trident(tmp_path / "a.h5", features, cells * 512)
    sequence = FeatureSequence([path])
    write_trident(path, features[:, ::-1].copy(), cells * 512)
    with pytest.raises(FeatureFileError, match=r"a\.h5: the file has changed"):
        sequence[0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"encoder": "phikon_v2"}, 'encoder is "phikon_v2", not "uni_v1"'),
        ({"encoder": None}, 'encoder is null, not "uni_v1"'),
        ({"patch_size": 512, "patch_size_level0": 1024}, "patch size is 512, not 256"),
        (
            {"target_magnification": 10, "patch_size_level0": 1024},
            "magnification is 10.0, not 20.0",
        ),
    ],
)
def test_mixtures_are_named(tmp_path, features, cells, other, message):
    one = write_trident(tmp_path / "a.h5", features, cells * 512)
    two = write_trident(tmp_path / "b.h5", features, cells * 512, **other)
    with pytest.raises(ValueError, match=rf"b\.h5 .*a\.h5: {message}"):
        FeatureSequence([one, two])


def test_mixtures_of_programs_are_refused(tmp_path, features, cells):
    one = write_trident(tmp_path / "a.h5", features, cells * 512, encoder="uni2")
    two = write_stamp(tmp_path / "b.h5", features, cells * 256.0)
    with pytest.raises(ValueError, match="made in another way"):
        FeatureSequence([one, two])
    wide = write_trident(tmp_path / "c.h5", np.ones((6, 9)), cells * 512, encoder="uni2")
    with pytest.raises(ValueError, match="has 9 features per patch, but"):
        FeatureSequence([one, wide])
    with pytest.raises(FeatureFileError, match="coordinates without features"):
        FeatureSequence([write_clam_coords(tmp_path / "d.h5", cells * 256)])


def test_memory_of_open_files_is_bounded(tmp_path, monkeypatch):
    """Files whose rows were read are let go, oldest first; those only touched stay open."""
    from proportion_ssl.slides.features import sequence as module

    monkeypatch.setattr(module, "HELD_BYTES", 3 * 10 * 4 * 4)
    paths = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], np.full((10, 4), number, np.float16))
    sequence = FeatureSequence(paths)
    np.testing.assert_array_equal(sequence[...][:, 0], np.repeat(np.arange(8), 10))
    assert len(sequence._mapped) <= 4 and sum(sequence._held.values()) <= 4 * 160
    touched = FeatureSequence(paths)
    np.testing.assert_array_equal(touched[np.arange(0, 80, 10)][:, 0], np.arange(8))
    assert len(touched._mapped) == 8
