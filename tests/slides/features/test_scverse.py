"""Tiles of LazySlide, with stand-ins for its objects; benchmarks/interop tries the library itself."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import shapely

from proportion_ssl.slides import FeatureFileError, read_wsi_tiles, write_wsi_predictions


class Shapes(pd.DataFrame):
    """As geopandas gives bounds."""

    @property
    def geometry(self):
        return SimpleNamespace(bounds=shapely.bounds(self["geometry"].to_numpy()))


@pytest.fixture
def wsi():
    cells = np.array([[1, 2], [2, 2], [1, 3], [4, 5]])
    corner = cells * 512
    tiles = Shapes({"geometry": shapely.box(*corner.T, *(corner + 512).T)})
    spec = {"width": 256, "height": 256, "stride_width": 256, "stride_height": 256, "mpp": 0.5}
    return SimpleNamespace(
        tables={"uni_tiles": SimpleNamespace(X=np.arange(12.0).reshape(4, 3))},
        shapes={"tiles": tiles},
        attrs={
            "slide_properties": {"mpp": 0.25, "shape": [4000, 6000]},
            "tile_spec": {"tiles": spec},
        },
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_tiles(wsi, sparse):
    if sparse:
        wsi.tables["uni_tiles"].X = scipy.sparse.csr_matrix(wsi.tables["uni_tiles"].X)
    stored = read_wsi_tiles(wsi, "uni")
    np.testing.assert_array_equal(stored.features, np.arange(12.0).reshape(4, 3))
    assert (stored.mpp, stored.dimensions, stored.encoder) == ((0.25, 0.25), (6000, 4000), "uni")
    np.testing.assert_array_equal(stored.grid.cells, [[2, 1], [2, 2], [3, 1], [5, 4]])
    assert (stored.grid.mpp, stored.grid.size, stored.stride) == (0.5, (256, 256), 256)
    np.testing.assert_array_equal(stored.locations[3], [2048, 2560])


def test_tiles_that_do_not_fit(wsi):
    with pytest.raises(FeatureFileError, match=r"no table 'conch_tiles' .*\['uni_tiles'\]"):
        read_wsi_tiles(wsi, "conch")
    wsi.tables["uni_tiles"].X[2, 1] = np.nan
    with pytest.raises(FeatureFileError, match="uni_tiles: tile 2 has NaN"):
        read_wsi_tiles(wsi, "uni")
    wsi.tables["uni_tiles"].X = np.ones((3, 3))
    with pytest.raises(FeatureFileError, match=r"features of shape \(3, 3\) for 4 tiles"):
        read_wsi_tiles(wsi, "uni")


def test_predictions_go_back(wsi):
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [1, 0], [0.6, 0.4]])
    write_wsi_predictions(wsi, probabilities, ["acinar", "solid"])
    tiles = wsi.shapes["tiles"]
    np.testing.assert_array_equal(tiles[["prob_acinar", "prob_solid"]], probabilities)
    assert tiles["predicted"].tolist() == ["acinar", "solid", "acinar", "acinar"]
    shares = wsi.attrs["proportion_ssl"]["tiles"]["proportions"]
    assert shares == {"acinar": 0.75, "solid": 0.25}
    with pytest.raises(ValueError, match=r"shape \(4, 2\), one row per tile"):
        write_wsi_predictions(wsi, probabilities[:3], ["acinar", "solid"])
