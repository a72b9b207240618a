from ._errors import ModelFileError
from ._models import load, save

__all__ = ["ModelFileError", "load", "save"]
