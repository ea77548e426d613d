"""The large values of checkpoints seen lately, so that a child refers to what has not changed since its parent."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from s3_checkpoint.langgraph.grace import Seen
from s3_checkpoint.langgraph.place import Place
from s3_checkpoint.langgraph.records import ValueRef

REMEMBERED = 1000
"""Checkpoints."""


class KnownValue(NamedTuple):
    """A large value that a checkpoint refers to."""

    ref: ValueRef
    delta: bool
    seen: Seen | None
    """When this process wrote or read it; None: it was marked as unused then, and is not to be relied on."""


class KnownValues:
    """What checkpoints seen lately refer to. Called from any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[Place, Mapping[str, KnownValue]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, place: Place, values: Mapping[str, KnownValue]) -> None:
        """Remembers what the checkpoint at `place` refers to."""
        if values and place.checkpoint_id is not None:
            with self._lock:
                self._known[place] = values
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)

    def of(self, place: Place) -> Mapping[str, KnownValue]:
        """What the checkpoint there refers to; empty if not known."""
        with self._lock:
            return self._known.get(place, {})

    def clear(self) -> None:
        """Forgets all: objects have been deleted."""
        with self._lock:
            self._known.clear()
