"""Small U-Net on the grid of a slide that ignores empty cells."""

import numpy as np
import torch
from torch import nn

from proportion_ssl.nets.random_numbers import generator


class ContextNet(nn.Module):
    """U-Net that maps the values of patches on the slide grid to one or more outputs per patch.

    Parameters
    ----------
    n_inputs, n_outputs : int
    width : int
        Number of channels.
    depth : int
        Number of downsampling steps by a factor of two.
    kernel_size : int
        Odd. With 1, and depth 0, patches are processed independently.

    Notes
    -----
    Empty cells are reset to 0 after every convolution, like the padding beyond the grid, and downsampling
    averages over the cells with tissue. Empty cells therefore have the same effect as cells outside the
    grid. The last layer is initialized with 0, so the initial outputs are 0.
    """

    def __init__(self, n_inputs: int, n_outputs: int, *, width: int, depth: int, kernel_size: int):
        super().__init__()
        self.depth = depth
        self.embed = _new(nn.Linear, n_inputs, width)
        self.down = nn.ModuleList(_Block(width, width, kernel_size) for _ in range(depth))
        self.bottom = _Block(width, width, kernel_size)
        self.up = nn.ModuleList(_Block(2 * width, width, kernel_size) for _ in range(depth))
        self.head = _new(nn.Linear, width, n_outputs)
        nn.init.zeros_(self.head.weight)

    def forward(
        self, values: torch.Tensor, slide: torch.Tensor, cells: torch.Tensor
    ) -> torch.Tensor:
        """Outputs, shape (n_patches, n_outputs).

        Parameters
        ----------
        values : torch.Tensor of shape (n_patches, n_inputs)
        slide : torch.Tensor of int64, shape (n_patches,)
            0 to n_slides - 1.
        cells : torch.Tensor of int64, shape (n_patches, 2)
            Row and column of each patch, unique within a slide. The outputs do not change under shifts by
            multiples of ``2 ** depth``.
        """
        place, shape = lay(slide, cells, 2**self.depth)
        embedded = self.embed(values).relu()
        x = embedded.new_zeros((*shape, embedded.shape[1])).index_put(place, embedded)
        x = x.permute(0, 3, 1, 2)
        tissue = x.new_zeros(shape).index_put(place, x.new_ones(len(values))).unsqueeze(1)
        above = []
        for block in self.down:
            x = block(x, tissue)
            above.append((x, tissue))
            x, tissue = halve(x, tissue)
        x = self.bottom(x, tissue)
        for block in self.up:
            finer, tissue = above.pop()
            x = torch.cat([finer, nn.functional.interpolate(x, scale_factor=2) * tissue], dim=1)
            x = block(x, tissue)
        return self.head(x.permute(0, 2, 3, 1)[place])


class _Block(nn.Module):
    """Two convolutions, each followed by setting empty cells to 0."""

    def __init__(self, n_in, n_out, kernel_size):
        super().__init__()
        settings = {"kernel_size": kernel_size, "padding": kernel_size // 2}
        self.first = _new(nn.Conv2d, n_in, n_out, **settings)
        self.second = _new(nn.Conv2d, n_out, n_out, **settings)

    def forward(self, x, tissue):
        x = self.first(x).relu() * tissue
        return self.second(x).relu() * tissue


def lay(
    slide: torch.Tensor, cells: torch.Tensor, multiple: int
) -> tuple[tuple[torch.Tensor, ...], tuple[int, int, int]]:
    """Positions of patches on slide maps whose origin and size are multiples of a number.

    Parameters
    ----------
    slide : torch.Tensor of int64, shape (n_patches,)
    cells : torch.Tensor of int64, shape (n_patches, 2)
    multiple : int

    Returns
    -------
    place : tuple of three torch.Tensor of int64, shape (n_patches,)
        Slide, row and column of each patch.
    shape : tuple of int
        Number of slides, rows and columns; the latter two are multiples of ``multiple``.

    Examples
    --------
    >>> import torch
    >>> (_, row, column), shape = lay(torch.zeros(2).long(), torch.tensor([[5, 9], [6, 14]]), 4)
    >>> row.tolist(), column.tolist(), shape
    ([1, 2], [1, 6], (1, 4, 8))
    """
    n_slides = int(slide.max()) + 1
    first = cells.new_full((n_slides, 2), torch.iinfo(torch.int64).max)
    first = first.scatter_reduce(0, slide.unsqueeze(1).expand_as(cells), cells, "amin")
    start = first.div(multiple, rounding_mode="floor") * multiple
    within = cells - start[slide]
    rows, columns = ((int(side) // multiple + 1) * multiple for side in within.max(dim=0).values)
    return (slide, within[:, 0], within[:, 1]), (n_slides, rows, columns)


def halve(x: torch.Tensor, tissue: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average over the cells with tissue in each block of two by two cells.

    Parameters
    ----------
    x : torch.Tensor of shape (n_slides, n_channels, n_rows, n_columns)
        0 without tissue.
    tissue : torch.Tensor of shape (n_slides, 1, n_rows, n_columns)
        1 or 0.

    Returns
    -------
    x, tissue : torch.Tensor
        With half as many rows and columns; 0 where none of the four cells has tissue.
    """
    share = nn.functional.avg_pool2d(tissue, 2)
    return nn.functional.avg_pool2d(x, 2) / share.clamp(min=0.25), (share > 0).to(x.dtype)


def moved(cells: np.ndarray, depth: int, random_state: np.random.RandomState) -> np.ndarray:
    """Cells of a slide after a random symmetry of the square (one of eight) and a random shift.

    Parameters
    ----------
    cells : ndarray of int, shape (n_patches, 2)
    depth : int
        Shifts are below ``2 ** depth``; larger ones are equivalent for the net.
    random_state : numpy.random.RandomState

    Returns
    -------
    cells : ndarray of int, shape (n_patches, 2)
    """
    if random_state.randint(2):
        cells = cells[:, ::-1]
    signs = 2 * random_state.randint(2, size=2) - 1
    return signs * cells + random_state.randint(2**depth, size=2)


def _new(layer, *sizes, **settings):
    """Create a layer with weights drawn from the random generator of the fit."""
    made = nn.utils.skip_init(layer, *sizes, **settings)
    nn.init.kaiming_uniform_(made.weight, nonlinearity="relu", generator=generator())
    nn.init.zeros_(made.bias)
    return made
