"""What a file that cannot be loaded raises; apart from the rest, which needs torch."""


class ModelFileError(ValueError):
    """A model file that is damaged, of another version, or not a model of this package."""
