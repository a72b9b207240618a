"""Patch classifiers trained on a few labeled patches and many bags with recorded class proportions.

Names are listed in ``__init__.pyi`` and imported lazily, so that reading slides or predicting with an
exported network does not load torch.
"""

import lazy_loader

from proportion_ssl import _moved

_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = _moved.follow(__name__, _moved.FROM_TOP, otherwise=_find)
