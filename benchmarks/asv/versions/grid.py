"""Grids of large slides, and maps from their patches."""

import numpy as np

from proportion_ssl.slides import patch_grid, stitch, tissue_fraction


class Grids:
    params = ([20_000, 100_000, 200_000],)
    param_names = ("side",)

    def setup(self, side):
        self.grid = patch_grid((side, side), 0.25, magnification=10)
        self.mask = np.random.default_rng(0).random((side // 32, side // 32)) > 0.5
        self.values = np.arange(len(self.grid))

    def time_patch_grid(self, side):
        patch_grid((side, side), 0.25, magnification=10)

    def time_concentric(self, side):
        self.grid.concentric(magnification=2.5)

    def time_tissue_fraction(self, side):
        tissue_fraction(self.mask, self.grid, (side, side))

    def time_stitch(self, side):
        stitch(self.values, self.grid.cells, self.grid.shape)
