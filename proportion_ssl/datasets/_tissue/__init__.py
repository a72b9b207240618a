"""Drawing of synthetic tissue."""
