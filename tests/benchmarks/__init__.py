"""Benchmarks: this library, the bare SDK and published savers, on a stub that counts. Run with `make bench`."""
