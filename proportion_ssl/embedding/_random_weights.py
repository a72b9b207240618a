"""Initial weights from a local generator, as torch's global one is shared by all threads."""

import torch
from torch.overrides import TorchFunctionMode


class WeightsFrom(TorchFunctionMode):
    """Within the block, and in this thread only, ``torch.nn.init`` draws from the given generator.

    The weights equal those of torch's global generator with the same seed.

    Parameters
    ----------
    generator : torch.Generator or None
        None: torch's global generator.

    Examples
    --------
    >>> with WeightsFrom(torch.Generator().manual_seed(0)):
    ...     layer = torch.nn.Linear(2, 1)
    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> torch.equal(layer.weight, torch.nn.Linear(2, 1).weight)
    True
    """

    def __init__(self, generator: torch.Generator | None):
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if "generator" in kwargs and kwargs["generator"] is None:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)
