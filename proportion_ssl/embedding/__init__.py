"""Features of images from a frozen network, in torch or exported to a file that needs no torch.

Names are listed in ``__init__.pyi`` and imported on first use, so that an exported network runs without
torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
