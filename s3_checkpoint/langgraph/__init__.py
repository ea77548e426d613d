"""LangGraph checkpoints on S3: `S3Saver`. Needs the extra `langgraph`."""

try:
    import langgraph.checkpoint.base as _  # noqa: F401
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "the LangGraph saver needs a package: pip install 's3-checkpoint[langgraph]'", name=_error.name
    ) from _error

from s3_checkpoint.langgraph.saver import S3Saver

__all__ = ["S3Saver"]
