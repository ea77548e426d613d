"""Checkpoints for graph engines and agents whose workers are serverless: all they need is an S3 bucket."""

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
