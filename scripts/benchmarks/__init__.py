"""The sections of benchmark.py."""
