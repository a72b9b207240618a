"""Save a fitted classifier to one file, and load it without executing anything from the file.

The file is in the safetensors format: weights and other arrays as tensors, everything else as JSON in its
header. Class names in a file are looked up in ``_tables``; nothing is imported by a name from a file, and
nothing is unpickled.

A classifier of this package lists in its class attribute ``_kept`` what is saved, and can be saved once its
name is in ``_tables.MODELS``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
