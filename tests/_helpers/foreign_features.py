"""Feature files laid out as other programs write them (read in their source)."""

import csv
import json

import h5py
import numpy as np
import torch


def row_chunks(file, name, values, attributes=None):
    """A dataset in chunks of one row that can grow, as TRIDENT and CLAM make it."""
    values = np.asarray(values)
    dataset = file.create_dataset(
        name,
        shape=values.shape,
        maxshape=(None, *values.shape[1:]),
        chunks=(1, *values.shape[1:]),
        dtype=values.dtype,
    )
    dataset[:] = values
    for key, value in (attributes or {}).items():
        dataset.attrs[key] = "None" if value is None else value
    return dataset


def trident_attributes(name="slide", **changes):
    return {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": name,
        "savetodir": "/data/trident/20x_256px_0px_overlap",
        "level0_width": 60000,
        "level0_height": 40000,
        **changes,
    }


def write_trident(path, features, coords, *, encoder="uni_v1", **changes):
    """``features_ENCODER/NAME.h5`` of TRIDENT."""
    with h5py.File(path, "w") as file:
        about = {"name": path.stem, "savetodir": str(path.parent), "encoder": encoder}
        row_chunks(file, "features", features, about)
        row_chunks(
            file, "coords", np.asarray(coords, np.int64), trident_attributes(path.stem, **changes)
        )
    return path


def write_clam_features(path, features, coords):
    """``h5_files/NAME.h5`` of CLAM: written batch by batch, without attributes."""
    with h5py.File(path, "w") as file:
        for name, values in (("features", features), ("coords", np.asarray(coords, np.int32))):
            half = max(len(values) // 2, 1)
            dataset = row_chunks(file, name, values[:half])
            dataset.resize(len(values), axis=0)
            dataset[half:] = values[half:]
    return path


def write_clam_coords(path, coords, **changes):
    """``patches/NAME.h5`` of CLAM."""
    attributes = {
        "patch_size": 256,
        "patch_level": 0,
        "downsample": (1.0, 1.0),
        "downsampled_level_dim": np.array([60000, 40000]),
        "level_dim": np.array([60000, 40000]),
        "name": path.stem,
        "save_path": str(path.parent),
        **changes,
    }
    with h5py.File(path, "w") as file:
        row_chunks(file, "coords", np.asarray(coords, np.int64), attributes)
    return path


def write_stamp(path, features, coords_um, **changes):
    """``EXTRACTOR-HASH/NAME.h5`` of STAMP."""
    attributes = {
        "stamp_version": "2.4.0",
        "extractor": "uni2",
        "unit": "um",
        "tile_size_um": 256.0,
        "tile_size_px": 224,
        "code_hash": "1a2b3c4d",
        "feat_type": "tile",
        **changes,
    }
    with h5py.File(path, "w") as file:
        file["coords"] = np.asarray(coords_um, np.float32)
        file["feats"] = np.asarray(features, np.float16)
        file.attrs.update({key: value for key, value in attributes.items() if value is not None})
    return path


def write_slideflow(path, features, centers, **changes):
    """``NAME.pt``, ``NAME.index.npz`` and ``bags_config.json`` of slideflow."""
    torch.save(torch.from_numpy(np.asarray(features)), path)
    np.savez(path.with_suffix(".index"), np.asarray(centers))
    config = {
        "extractor": {"class": "slideflow.model.extractors.uni.UNIFeatures", "kwargs": {}},
        "normalizer": None,
        "num_features": features.shape[1],
        "tile_px": 224,
        "tile_um": 256,
        **changes,
    }
    (path.parent / "bags_config.json").write_text(json.dumps(config))
    return path


def write_eva(path, features, *, origin="slides/slide.svs"):
    """``NAME.pt`` with one tensor per patch, and ``manifest.csv`` of eva."""
    torch.save([torch.from_numpy(row.copy()) for row in np.asarray(features)], path)
    with open(path.parent / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["origin", "embeddings", "target", "split"])
        writer.writerow([origin, path.name, 1, "train"])
    return path


def write_torchmil(folder, name, features, coords, suffix=".npy"):
    """``features/NAME`` and ``coords/NAME`` of torchmil."""
    for part, values in (("features", features), ("coords", coords)):
        (folder / part).mkdir(exist_ok=True)
        path = folder / part / f"{name}{suffix}"
        if suffix == ".npy":
            np.save(path, values)
        else:
            with h5py.File(path, "w") as file:
                file[part] = values
    return folder / "features" / f"{name}{suffix}"
