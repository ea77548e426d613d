"""Event loops, threads and bounded concurrency; knows nothing of checkpoints."""
