"""Runs in the environment of another tool: ``there.py TOOL STEP FOLDER [SOURCE]``."""

import importlib.metadata
import json
import sys
import types
from pathlib import Path

import numpy as np

N, WIDTH = 40, 8


def example():
    rng = np.random.default_rng(0)
    cells = np.stack(np.divmod(np.arange(N), 8)[::-1], axis=1)
    return rng.normal(size=(N, WIDTH)).astype(np.float32), cells


# --- geopandas --------------------------------------------------------------------------------


def geopandas_write(folder, source):
    return importlib.metadata.version("geopandas"), importlib.metadata.version("shapely")


def geopandas_read(folder, source):
    """Tiles and outlines as a GeoDataFrame, and by shapely alone: numbers, areas by class, measurements."""
    import geopandas
    import shapely

    expected = json.loads((folder / "found.json").read_text())
    seen = []
    for name in ("tiles", "regions"):
        path = folder / f"{name}.geojson"
        frame = geopandas.read_file(path)
        assert frame.geometry.is_valid.all() and len(frame) == expected[name]["n"]
        classification = frame["classification"].map(
            lambda value: value if isinstance(value, dict) else json.loads(value)
        )
        areas = frame.area.groupby(classification.map(lambda value: value["name"])).sum()
        assert np.allclose(areas, [expected[name]["areas"][c] for c in areas.index])
        features = json.loads(path.read_text())["features"]
        shapes = shapely.from_geojson([json.dumps(one["geometry"]) for one in features])
        assert shapely.is_valid(shapes).all() and np.isclose(
            shapely.area(shapes).sum(), areas.sum()
        )
        seen += [name, len(frame)]
        if name == "tiles":
            corner = frame.bounds.sort_values(["miny", "minx"]).index[0]
            stated = frame["measurements"][corner]
            stated = stated if isinstance(stated, dict) else json.loads(stated)
            for key, value in expected["first"].items():
                assert abs(stated[key] - value) < 1e-3, (stated, expected["first"])
    return seen


# --- LazySlide --------------------------------------------------------------------------------


def lazyslide_write(folder, source):
    import lazyslide as zs
    import torch
    from torchvision.transforms import v2
    from wsidata import open_wsi

    class Moments(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)

    wsi = open_wsi(str(folder / "slide.tif"))
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, 128, mpp=0.5)
    steps = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    zs.tl.feature_extraction(
        wsi, model=Moments(), model_name="moments", transform=steps, pbar=False
    )
    wsi.write(str(folder / "slide.zarr"), overwrite=True)
    table = wsi.tables["moments_tiles"]
    boxes = wsi.shapes["tiles"].geometry.bounds.to_numpy()
    np.savez(folder / "there.npz", X=np.asarray(table.X), boxes=boxes)
    return importlib.metadata.version("lazyslide"), importlib.metadata.version("wsidata")


def lazyslide_read(folder, source):
    """The adapter and the readers are single files of this package that need no torch of their own."""
    import lazyslide as zs
    from sklearn.linear_model import LogisticRegression
    from wsidata import open_wsi

    wsi = open_wsi(str(folder / "slide.tif"), store=str(folder / "slide.zarr"))
    stored = np.load(folder / "there.npz")
    from proportion_ssl.segmenter.tile_predictor import TilePredictor
    from proportion_ssl.slides.features.scverse import read_wsi_tiles, write_wsi_predictions

    found = read_wsi_tiles(wsi, "moments")
    assert np.array_equal(found.features, stored["X"].astype(np.float32))
    assert np.array_equal(found.grid.boxes, stored["boxes"])
    assert found.mpp == (0.5, 0.5) and found.dimensions == (2048, 2048)
    y = np.where(found.features[:, 0] > np.median(found.features[:, 0]), "acinar", "solid")
    model = LogisticRegression().fit(found.features, y)
    zs.tl.feature_prediction(wsi, TilePredictor(model), "moments", pbar=False)
    table = wsi.tables["proportion_ssl_tiles"]
    columns = list(table.var_names) if table.n_vars else list(table.obs)
    assert {"prob_acinar", "prob_solid"} <= set(columns), columns
    probabilities = model.predict_proba(found.features)
    if table.n_vars:
        order = [columns.index(f"prob_{name}") for name in model.classes_]
        assert np.allclose(np.asarray(table.X)[:, order], probabilities, atol=1e-6)
    write_wsi_predictions(wsi, probabilities, list(model.classes_))
    wsi.write(str(folder / "again.zarr"), overwrite=True)
    again = open_wsi(str(folder / "slide.tif"), store=str(folder / "again.zarr"))
    assert np.allclose(again.shapes["tiles"]["prob_solid"], probabilities[:, 1])
    shares = again.attrs["proportion_ssl"]["tiles"]["proportions"]
    assert abs(sum(shares.values()) - 1) < 1e-9
    return sorted(columns)


# --- torchmil ---------------------------------------------------------------------------------


def torchmil_write(folder, source):
    features, cells = example()
    for part, values in (
        ("features", features),
        ("coords", cells * 512),
        ("labels", np.array([1])),
    ):
        (folder / part).mkdir(exist_ok=True)
        np.save(folder / part / "a.npy", values)
    return (importlib.metadata.version("torchmil"),)


def torchmil_read(folder, source):
    import inspect

    from torchmil.datasets import ProcessedMILDataset

    knows_h5 = "file_type" in inspect.signature(ProcessedMILDataset.__init__).parameters
    for suffix, name in ((".npy", folder), (".h5", folder / "ours"))[: 1 + knows_h5]:
        data = ProcessedMILDataset(
            features_path=str(name / "features"),
            coords_path=str(name / "coords"),
            bag_keys=["X", "coords"],
            **({"file_type": suffix} if knows_h5 else {}),
        )
        bag = data[0]
        features, cells = example()
        assert np.allclose(np.asarray(bag["X"]), features)
        assert np.allclose(np.asarray(bag["coords"]), cells * 512)
    return ["npy", "h5 of this package"][: 1 + knows_h5]


# --- TIAToolbox -------------------------------------------------------------------------------


def tiatoolbox_write(folder, source):
    return importlib.metadata.version("tiatoolbox"), importlib.metadata.version("zarr")


def tiatoolbox_read(folder, source):
    import functools
    import sqlite3

    import zarr

    if not hasattr(sqlite3.Connection, "enable_load_extension"):  # a Python built without it

        class Connection(sqlite3.Connection):
            def enable_load_extension(self, enabled):
                """Nothing to load."""

        sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)
    from tiatoolbox.annotation import SQLiteStore

    expected = json.loads((folder / "store.json").read_text())
    store = SQLiteStore(folder / "ours.db")
    found = sorted(
        [a.properties["type"], round(a.geometry.area, 6), list(a.geometry.bounds)]
        for a in store.values()
    )
    assert found == expected["regions"], (found, expected["regions"])
    assert len(store.query((0, 0, 1, 1))) == expected["at_corner"]
    group = zarr.open(str(folder / "ours.zarr"), mode="r")
    probabilities = np.load(folder / "probabilities.npy")
    assert np.allclose(group["probabilities"][:], probabilities, atol=1e-6)
    assert np.array_equal(group["coordinates"][:], np.load(folder / "boxes.npy"))
    assert list(group.attrs["class_dict"].values()) == ["acinar", "solid"]
    return [f"{len(found)} annotations", f"{len(probabilities)} rows of zarr"]


# --- timm -------------------------------------------------------------------------------------


def timm_write(folder, source):
    return importlib.metadata.version("timm"), importlib.metadata.version("torch")


def timm_read(folder, source):
    """The same features by timm's own transform and by ours, of images of the encoder's own size."""
    import timm
    import torch
    from PIL import Image

    from proportion_ssl.embedding import pretrained_embedder

    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    found = []
    for name in ("resnet18", "vit_tiny_patch16_224"):
        model = timm.create_model(name, pretrained=False, num_classes=0).eval()
        ours = pretrained_embedder(model)
        config = {**timm.data.resolve_model_data_config(model), "crop_pct": 1.0}
        steps = timm.data.create_transform(**config, is_training=False)
        with torch.no_grad():
            expected = model(torch.stack([steps(Image.fromarray(image)) for image in images]))
        assert np.allclose(ours.embedder.transform(images), expected.numpy(), atol=1e-3), name
        found.append(f"{ours.name} {ours.size} {ours.embedder.mean[0]:.3f}")
    return found


# --- TRIDENT and STAMP: single files of their repositories ------------------------------------


def _module_of(path, names, **given):
    """Functions of a source file whose package needs more than is installed, with names that they use."""
    import ast

    tree = ast.parse(path.read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names
    ]
    module = sys.modules[path.stem] = types.ModuleType(path.stem)
    import h5py

    module.__dict__.update({"np": np, "h5py": h5py, "json": json, **given})
    header = ast.parse("from __future__ import annotations").body
    code = compile(ast.Module(body=[*header, *kept], type_ignores=[]), str(path), "exec")
    exec(code, module.__dict__)
    return module


def trident_write(folder, source):
    tool = _module_of(source / "trident" / "IO.py", {"save_h5", "coords_to_h5"})
    features, cells = example()
    place = str(folder / "patches.h5")
    arguments = {"patch_size": 256, "src_mag": 40, "target_mag": 20, "save_coords": str(folder)}
    size = {"width": 9000, "height": 7000, "name": "slide", "overlap": 0}
    tool.coords_to_h5((cells * 512).tolist(), place, **arguments, **size)
    import h5py

    with h5py.File(place) as file:
        attributes, coords = dict(file["coords"].attrs), file["coords"][:]
    about = {"name": "slide", "savetodir": str(folder), "encoder": "uni_v1"}
    tool.save_h5(
        str(folder / "slide.h5"),
        assets={"features": features, "coords": coords},
        attributes={"features": about, "coords": attributes},
        mode="w",
    )
    return ("functions save_h5 and coords_to_h5 of its source",)


def trident_read(folder, source):
    tool = _module_of(source / "trident" / "IO.py", {"read_coords"})
    attributes, coords = tool.read_coords(str(folder / "ours.h5"))
    _, cells = example()
    assert np.array_equal(coords, cells * 512)
    needed = {
        "patch_size",
        "level0_magnification",
        "target_magnification",
        "patch_size_level0",
        "overlap",
    }
    assert needed <= set(attributes), needed - set(attributes)
    return sorted(needed)


def stamp_write(folder, source):
    return ("layout of its source",)


def stamp_read(folder, source):
    path = source / "src" / "stamp" / "modeling" / "data.py"
    import dataclasses
    from types import SimpleNamespace

    import h5py
    from packaging.version import Version

    tool = _module_of(
        path,
        {"get_coords", "CoordsInfo"},
        dataclass=dataclasses.dataclass,
        Version=Version,
        **dict.fromkeys(("Microns", "SlideMPP"), float),
        TilePixels=int,
        stamp=SimpleNamespace(__version__="99"),
    )
    with h5py.File(folder / "ours_stamp.h5") as file:
        info = tool.get_coords(file)
    _, cells = example()
    assert np.allclose(info.coords_um, cells * 256) and info.tile_size_um == 256
    return ["coords_um", "tile_size_um"]


if __name__ == "__main__":
    tool, step, folder = sys.argv[1:4]
    source = Path(sys.argv[4]) if len(sys.argv) > 4 and sys.argv[4] else None
    print(json.dumps(list(globals()[f"{tool}_{step}"](Path(folder), source))))
