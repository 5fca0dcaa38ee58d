"""Benchmarks of FLiPLens: `python -m benchmarks [NAME ...]` prints tables and writes `benchmarks/results`."""
