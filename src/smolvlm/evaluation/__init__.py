"""Benchmarks. scorers/ grades an answer; it knows no model, no file and no torch."""
