"""The demonstration: a real graph on real text, run by worker processes that are killed, and proved right."""
