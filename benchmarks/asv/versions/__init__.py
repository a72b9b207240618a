"""Benchmarks over versions: pip install asv; cd benchmarks/asv; asv run."""
