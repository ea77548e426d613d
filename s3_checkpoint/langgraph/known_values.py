"""The large values of checkpoints seen lately, so that a child refers to what has not changed since its parent."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from langchain_core.runnables import RunnableConfig

from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.langgraph.envelope import ValueRef
from s3_checkpoint.langgraph.grace import Seen


class Place(NamedTuple):
    """What a config says of where a checkpoint is; `checkpoint_id` None: the newest."""

    thread_id: str
    namespace: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Place:
        """Read from `config["configurable"]`; ids are coerced with `str`, and absent or empty means the newest."""
        configurable = config.get("configurable") or {}
        thread_id = configurable.get("thread_id")
        if thread_id is None:
            raise InvalidArgumentError("thread_id", "", "must be given, as config['configurable']['thread_id']")
        checkpoint_id = configurable.get("checkpoint_id")
        return cls(
            str(thread_id), configurable.get("checkpoint_ns") or "", str(checkpoint_id) if checkpoint_id else None
        )

    @property
    def config(self) -> RunnableConfig:
        """The config that leads there, and nothing else."""
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.namespace,
                "checkpoint_id": self.checkpoint_id,
            }
        }


class KnownValue(NamedTuple):
    """A large value that a checkpoint refers to."""

    ref: ValueRef
    delta: bool
    seen: Seen | None
    """When this process wrote or read it; None: it was marked as unused then, and is not to be relied on."""


class KnownValues:
    """What checkpoints seen lately refer to. Called from any thread."""

    def __init__(self, *, most: int = 1000) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str, str], Mapping[str, KnownValue]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, place: Place, values: Mapping[str, KnownValue]) -> None:
        """Remembers what the checkpoint at `place` refers to."""
        if values and place.checkpoint_id is not None:
            with self._lock:
                self._known[place.thread_id, place.namespace, place.checkpoint_id] = values
                if len(self._known) > self._most:
                    self._known.popitem(last=False)

    def of(self, place: Place) -> Mapping[str, KnownValue]:
        """What the checkpoint there refers to; empty if not known."""
        with self._lock:
            return self._known.get((place.thread_id, place.namespace, place.checkpoint_id or ""), {})

    def clear(self) -> None:
        """Forgets all: objects have been deleted."""
        with self._lock:
            self._known.clear()
