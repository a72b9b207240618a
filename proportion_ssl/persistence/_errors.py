"""Error for files that cannot be loaded; a separate module, as the others need torch."""


class ModelFileError(ValueError):
    """A model file is damaged, of another version, or not a model of this package."""
