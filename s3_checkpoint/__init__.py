"""Checkpoints for graph engines and agents whose workers are serverless: all they need is an S3 bucket.

Names are imported when they are first asked for (PEP 562): a worker's cold start pays for what it uses.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3_checkpoint.checkpointer import Checkpointer, S3Checkpointer
    from s3_checkpoint.connection import Connection, connect
    from s3_checkpoint.errors import (
        AccessDeniedError,
        CheckpointError,
        ConfigurationError,
        InvalidArgumentError,
        LeaseHeldError,
        LifecycleError,
        StateDecodingError,
        StateEncodingError,
        StepConflictError,
        StoreError,
        StoreUnavailableError,
    )
    from s3_checkpoint.graph import END, HALT, Graph, Next, Send, Task
    from s3_checkpoint.memory_store import MemoryStore
    from s3_checkpoint.models import ActiveSnapshot, Checkpoint, StepInfo
    from s3_checkpoint.request_events import OnRequest, RequestEvent
    from s3_checkpoint.run_admin import RunAdmin
    from s3_checkpoint.run_models import (
        HistoryEntry,
        Origin,
        Pruned,
        PrunedRuns,
        RunActivity,
        RunStatus,
        RunUsage,
    )
    from s3_checkpoint.settings import S3Settings
    from s3_checkpoint.superstep import NO_STEP, Advance, Interrupted, run_superstep, run_to_end
    from s3_checkpoint.sync import SyncS3Checkpointer

__version__ = "0.1.0"

__all__ = [
    "END",
    "HALT",
    "NO_STEP",
    "AccessDeniedError",
    "ActiveSnapshot",
    "Advance",
    "Checkpoint",
    "CheckpointError",
    "Checkpointer",
    "ConfigurationError",
    "Connection",
    "Graph",
    "HistoryEntry",
    "Interrupted",
    "InvalidArgumentError",
    "LeaseHeldError",
    "LifecycleError",
    "MemoryStore",
    "Next",
    "OnRequest",
    "Origin",
    "Pruned",
    "PrunedRuns",
    "RequestEvent",
    "RunActivity",
    "RunAdmin",
    "RunStatus",
    "RunUsage",
    "S3Checkpointer",
    "S3Settings",
    "Send",
    "StateDecodingError",
    "StateEncodingError",
    "StepConflictError",
    "StepInfo",
    "StoreError",
    "StoreUnavailableError",
    "SyncS3Checkpointer",
    "Task",
    "__version__",
    "connect",
    "run_superstep",
    "run_to_end",
]

_MODULES = {
    "checkpointer": ("Checkpointer", "S3Checkpointer"),
    "connection": ("Connection", "connect"),
    "errors": (
        "AccessDeniedError",
        "CheckpointError",
        "ConfigurationError",
        "InvalidArgumentError",
        "LeaseHeldError",
        "LifecycleError",
        "StateDecodingError",
        "StateEncodingError",
        "StepConflictError",
        "StoreError",
        "StoreUnavailableError",
    ),
    "graph": ("END", "HALT", "Graph", "Next", "Send", "Task"),
    "memory_store": ("MemoryStore",),
    "models": ("ActiveSnapshot", "Checkpoint", "StepInfo"),
    "request_events": ("OnRequest", "RequestEvent"),
    "run_admin": ("RunAdmin",),
    "run_models": (
        "HistoryEntry",
        "Origin",
        "Pruned",
        "PrunedRuns",
        "RunActivity",
        "RunStatus",
        "RunUsage",
    ),
    "settings": ("S3Settings",),
    "superstep": ("NO_STEP", "Advance", "Interrupted", "run_superstep", "run_to_end"),
    "sync": ("SyncS3Checkpointer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker reads the imports above, and knows no other names

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        import gc
        from importlib import import_module

        collecting = gc.isenabled()
        gc.disable()  # importing makes next to no garbage, and looking for it takes a tenth of the time
        try:
            value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        finally:
            if collecting:
                gc.enable()
        return value


def __dir__() -> list[str]:
    return __all__
