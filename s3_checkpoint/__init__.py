"""Checkpoints for graph engines and agents whose workers are serverless: all they need is an S3 bucket.

Names are imported when they are first asked for: a worker's cold start pays for what it uses.
"""

import gc
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s3_checkpoint.checkpointer import Checkpointer, S3Checkpointer
    from s3_checkpoint.connect import Connection, connect
    from s3_checkpoint.errors import (
        AccessDeniedError,
        CheckpointError,
        ConfigurationError,
        InvalidArgumentError,
        LifecycleError,
        StateDecodingError,
        StateEncodingError,
        StepConflictError,
        StoreError,
        StoreUnavailableError,
    )
    from s3_checkpoint.graph import END, HALT, Graph, Next, Send, Task
    from s3_checkpoint.lineage import Origin
    from s3_checkpoint.memory_store import MemoryStore
    from s3_checkpoint.models import ActiveSnapshot, Checkpoint, StepInfo
    from s3_checkpoint.request_events import OnRequest, RequestEvent
    from s3_checkpoint.run_admin import RunAdmin
    from s3_checkpoint.run_records import HistoryEntry, Pruned, PrunedRuns, RunActivity, RunUsage
    from s3_checkpoint.settings import S3Settings
    from s3_checkpoint.superstep import NO_STEP, Advance, Interrupted, run_superstep, run_to_end
    from s3_checkpoint.sync import SyncS3Checkpointer

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
    "connect",
    "run_superstep",
    "run_to_end",
]

_HOMES = {
    "checkpointer": ("Checkpointer", "S3Checkpointer"),
    "connect": ("Connection", "connect"),
    "errors": (
        "AccessDeniedError",
        "CheckpointError",
        "ConfigurationError",
        "InvalidArgumentError",
        "LifecycleError",
        "StateDecodingError",
        "StateEncodingError",
        "StepConflictError",
        "StoreError",
        "StoreUnavailableError",
    ),
    "graph": ("END", "HALT", "Graph", "Next", "Send", "Task"),
    "lineage": ("Origin",),
    "memory_store": ("MemoryStore",),
    "models": ("ActiveSnapshot", "Checkpoint", "StepInfo"),
    "request_events": ("OnRequest", "RequestEvent"),
    "run_admin": ("RunAdmin",),
    "run_records": ("HistoryEntry", "Pruned", "PrunedRuns", "RunActivity", "RunUsage"),
    "settings": ("S3Settings",),
    "superstep": ("NO_STEP", "Advance", "Interrupted", "run_superstep", "run_to_end"),
    "sync": ("SyncS3Checkpointer",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # a type checker is to know these names, and no others

    class _Package(ModuleType):
        def __setattr__(self, name: str, value: object) -> None:
            # Importing a submodule sets it as an attribute; `connect` is the function, whoever was imported first.
            super().__setattr__(name, value.connect if name == "connect" and isinstance(value, ModuleType) else value)

        def __getattr__(self, name: str) -> object:
            if name not in _HOME:
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
            collecting = gc.isenabled()
            gc.disable()  # importing makes next to no garbage, and looking for it takes a tenth of the time
            try:
                value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
            finally:
                if collecting:
                    gc.enable()
            return value

        def __dir__(self) -> list[str]:
            return sorted({*globals(), *__all__})

    sys.modules[__name__].__class__ = _Package
