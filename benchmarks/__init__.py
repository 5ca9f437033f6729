"""Side-by-side runs against the published loops; run from the repository root with `python -m benchmarks`."""
