"""Benchmarks over versions: pip install asv; asv run --config benchmarks/asv.conf.json."""
