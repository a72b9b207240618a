"""Save a fitted classifier to one file, and load it without running anything that the file says.

The file is in the safetensors format: weights and other arrays as tensors, everything else as JSON
in its header. A file names classes, and they are looked up in ``_tables``; nothing is imported
by a name that a file gives, and nothing is unpickled.

A classifier of this package says in its class attribute ``_kept`` what a file keeps of it, and becomes
savable by its name in ``_tables.MODELS``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
