"""LangGraph checkpoints on S3: `S3Saver`. Needs the extra `langgraph`."""

from s3_checkpoint.langgraph.saver import S3Saver

__all__ = ["S3Saver"]
