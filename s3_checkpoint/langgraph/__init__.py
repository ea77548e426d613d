"""LangGraph on S3: checkpoints (`S3Saver`), long-term memory (`S3Store`), `ThreadAdmin`. Needs the extra `langgraph`.

From top to bottom, each importing only what is below it:

    thread_admin, retention, thread_views, json_view    what an operator sees and prunes; moving: from saver to saver
    saver, calls, conversion                            LangGraph's interface; its values ↔ records and payloads
    store, item_store, item_filter, item_record         long-term memory: LangGraph's interface, items as objects
    removal, copying, history, delta_channels           whole threads and runs
    thread_store, thread_listing, object_cache          checkpoints and pending writes as objects
    grace, remnants, known_values                       what puts rely on, and what removal leaves them
    records, place                                      what an object holds; which one a config names
    opening                                             whose settings saver and store follow; their `setup`
"""

try:
    import langgraph.checkpoint.base as _  # noqa: F401
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "the LangGraph saver needs a package: pip install 's3-checkpoint[langgraph]'", name=_error.name
    ) from _error

from importlib import import_module
from typing import TYPE_CHECKING

from s3_checkpoint.langgraph.saver import S3Saver

if TYPE_CHECKING:
    from s3_checkpoint.langgraph.moving import CopiedThreads, copy_threads
    from s3_checkpoint.langgraph.store import S3Store
    from s3_checkpoint.langgraph.thread_admin import ThreadAdmin
    from s3_checkpoint.langgraph.thread_views import (
        CheckpointView,
        PrunedThread,
        ThreadActivity,
        ThreadStatus,
        ThreadUsage,
        WriteView,
    )

__all__ = [
    "CheckpointView",
    "CopiedThreads",
    "PrunedThread",
    "S3Saver",
    "S3Store",
    "ThreadActivity",
    "ThreadAdmin",
    "ThreadStatus",
    "ThreadUsage",
    "WriteView",
    "copy_threads",
]

_HOMES = {
    "CopiedThreads": "moving",
    "S3Store": "store",
    "ThreadAdmin": "thread_admin",
    "copy_threads": "moving",
    **dict.fromkeys(
        ("CheckpointView", "PrunedThread", "ThreadActivity", "ThreadStatus", "ThreadUsage", "WriteView"), "thread_views"
    ),
}
"""Where the other names are: a worker, which needs the saver alone, does not import them."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
