"""A graph as a value: its nodes, where each leads, and how updates change the state.

A node is an async function `(state, task) -> Next(update, goto)`. Where it goes is one of

    "write"                          that node
    ["write", "check"]               several nodes, one task each, in this order; a node named twice runs twice
    Send("write", {"section": 2})    that node, with a payload of its own
    [Send(…), Send(…), "check"]      any mixture; inside a list, a plain (node, payload) tuple is a send as well
    HALT                             nowhere: this branch ends; the run ends when no branch is left. So does []
    END                              the run ends, whatever the other tasks of the superstep do
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeAlias
from uuid import UUID

from pydantic import JsonValue, ValidationError

from s3_checkpoint._printable import printable
from s3_checkpoint.errors import ConfigurationError, InvalidArgumentError, StateEncodingError
from s3_checkpoint.models import ActiveSnapshot, StateT

END: Final = "__end__"
"""Where a task goes to end the run; also the one active task of a finished run. No node can have this name."""
HALT: Final = "__halt__"
"""Where a task goes to end its own branch. No node can have this name."""


class Send(NamedTuple):
    """A task for the next superstep with a payload of its own."""

    node: str
    payload: Any
    """A JSON value."""


Goto: TypeAlias = str | Send | Sequence[str | Send | tuple[str, Any]]
"""Where a task leads; the module's docstring shows each form."""


@dataclass(frozen=True, slots=True)
class Next:
    """What a task returns: its update of the state (None: nothing to merge) and where the run goes from there."""

    update: Any
    goto: Goto


@dataclass(frozen=True, slots=True)
class Task:
    """What a node is called with, apart from the state."""

    run_id: UUID
    step: int
    """The step that this superstep commits."""
    index: int
    """The place of this task among those of the superstep; updates merge in this order."""
    node_name: str
    payload: JsonValue | None = None

    @property
    def idempotency_key(self) -> str:
        """The same each time this very task runs again, and different for every other: for side effects."""
        return f"{self.run_id}/{self.step}/{self.index}"


@dataclass(frozen=True, slots=True)
class Graph(Generic[StateT]):
    """The start node, the nodes by name, and how an update changes the state.

    `apply(state, update)` returns the new state; it may change and return the one it is given. Raises
    `InvalidArgumentError` for a start node that is none of the nodes, or a node with a reserved name.
    """

    start: str
    nodes: Mapping[str, Callable[[StateT, Task], Awaitable[Next]]]
    apply: Callable[[StateT, Any], StateT]

    def __post_init__(self) -> None:
        for name in (END, HALT):
            if name in self.nodes:
                raise InvalidArgumentError("nodes", name, "must not use a reserved name")
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))  # later changes of theirs are not ours
        if self.start not in self.nodes:
            raise InvalidArgumentError("start", str(self.start)[:80], f"must be one of the nodes ({self._names()})")

    def check(self, names: Iterable[str], whose: str) -> None:
        """Does nothing if all `names` are nodes.

        Raises:
            ConfigurationError: One is not; the message begins with `whose`.
        """
        for name in names:
            if name not in self.nodes:
                what = printable(str(name))[:80]  # it can come from a stored object
                raise ConfigurationError(f"{whose} `{what}`, which is not a node; the nodes are {self._names()}")

    def following(self, ran: Sequence[ActiveSnapshot], results: Sequence[Next]) -> list[ActiveSnapshot]:
        """The tasks that results lead to.

        Args:
            ran: The tasks that ran.
            results: What each of them gave, in the same order.

        Returns:
            In order; `END` alone if the run ends.

        Raises:
            ConfigurationError: A result leads to a node that is none.
            StateEncodingError: A payload is no JSON value.
        """
        active: list[ActiveSnapshot] = []
        ended = False
        for task, result in zip(ran, results, strict=True):
            for name, payload in _targets(result.goto):
                if name == END:
                    ended = True
                elif name != HALT:
                    self.check([name], f"node `{task.node_name}` goes to")
                    active.append(_snapshot(name, payload, len(active)))
        return [ActiveSnapshot(node_name=END)] if ended or not active else active

    def _names(self) -> str:
        return ", ".join(f"`{name}`" for name in self.nodes)


def _targets(goto: Goto) -> Iterator[tuple[str, Any]]:
    for target in [goto] if isinstance(goto, str | Send) else goto:
        yield (target, None) if isinstance(target, str) else (target[0], target[1])


def _snapshot(name: str, payload: Any, index: int) -> ActiveSnapshot:
    try:
        return ActiveSnapshot(node_name=name, payload=payload)
    except ValidationError:
        reason = f"a payload must be a JSON value, not {type(payload).__name__}"
        raise StateEncodingError(f"$active[{index}].payload", reason) from None  # pydantic's error quotes the payload


def check_graph(graph: object) -> None:
    """Raises `InvalidArgumentError` for what is no `Graph`."""
    if not isinstance(graph, Graph):
        reason = "must be a Graph of this library; one of LangGraph's is compiled with an S3Saver"
        raise InvalidArgumentError("graph", type(graph).__name__, reason)
