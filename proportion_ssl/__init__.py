"""Patch classifiers from a few labelled patches and many bags with known class proportions.

Names are listed in ``__init__.pyi`` and imported when they are first used, so that reading slides or
predicting with an exported network does not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
