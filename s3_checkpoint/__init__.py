"""Checkpoints for graph engines and agents, on nothing but an S3 bucket."""
