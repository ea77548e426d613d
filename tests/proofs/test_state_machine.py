"""Histories of several workers, namespaces, faults and schema versions against a model: a dictionary.

The model holds what each step shows: a state, and the tasks bound to it (None where it was only saved). A write whose
outcome is unknown leaves two possibilities open until a reader looks; whatever it sees is what is there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from pydantic import BaseModel, TypeAdapter

from s3_checkpoint import (
    ActiveSnapshot,
    MemoryStore,
    S3Checkpointer,
    S3Settings,
    StateDecodingError,
    StepConflictError,
    StoreUnavailableError,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing import (
    Aim,
    AnswerLost,
    Conflict409,
    Crash,
    CrashAfter,
    CrashBefore,
    SlowDown503,
    SmallPages,
    StoreWrapper,
    Unanswered,
    state_put,
)
from tests.conftest import TRANSPORTS
from tests.proofs.scheduler import World

T = TypeVar("T")
NAMESPACES = ["", "research", "research/a b.ü"]


class Sentence(BaseModel):
    """Schema version 1 keeps the words in reading order, version 2 backwards: the same JSON means another thing."""

    words: list[str]


def backwards(old: Any) -> Any:
    return {"words": old["words"][::-1]}


@dataclass(frozen=True)
class Shown:
    """What a step shows: its state as written, its version, and its own tasks (None: those of `save_active`)."""

    words: tuple[str, ...]
    version: int
    tasks: tuple[str, ...] | None


SENTENCE: Any = TypeAdapter(Sentence)
Place = tuple[str, int]
STEPS = [0, 1, 2, 9, 10, 2**64 - 1]
FAULTS: dict[str, Callable[[ObjectStore], StoreWrapper]] = {
    "none": StoreWrapper,
    "state answer lost": lambda store: AnswerLost(store, state_put()),
    "any answer lost": lambda store: AnswerLost(store, Aim("PutObject")),
    "crash before": lambda store: CrashBefore(store, Aim("PutObject")),
    "crash before state": lambda store: CrashBefore(store, state_put()),
    "crash after": lambda store: CrashAfter(store, Aim("PutObject")),
    "crash after state": lambda store: CrashAfter(store, state_put()),
    "unanswered, landed": lambda store: Unanswered(store, state_put(), landed=True),
    "unanswered, not landed": lambda store: Unanswered(store, state_put(), landed=False),
    "409 twice": lambda store: Conflict409(store, state_put(times=2)),
    "409 of another kind": lambda store: Conflict409(store, code="ConcurrentModification"),
    "409 without end": lambda store: Conflict409(store, state_put(times=99)),
    "slow down": lambda store: SlowDown503(store, Aim("PutObject", first=2)),
    "cannot look": lambda store: SlowDown503(AnswerLost(store, state_put()), Aim("HeadObject")),
}

places = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(STEPS))
words = st.sampled_from([("red",), ("red", "ü"), ("ü", "red")])  # few, so that workers meet
versions = st.sampled_from([1, 2])
faults = st.sampled_from(sorted(FAULTS))


class Run(Protocol):
    """Runs a call to its end."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


class Histories(RuleBasedStateMachine):
    """Workers of version 1 are of the old deployment, those of version 2 of the new one, which reads both."""

    def __init__(self, store: ObjectStore, run: Run) -> None:
        super().__init__()
        self.store, self.run = store, run
        self.ids = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.run_id: UUID = uuid4()
        self.steps: dict[Place, frozenset[Shown | None]] = {}
        self.saved_tasks: dict[Place, frozenset[tuple[str, ...]]] = {}
        self.remembering = {short: self.checkpointer(2, short=short) for short in (False, True)}

    def checkpointer(self, version: int, fault: str = "none", *, short: bool = False) -> S3Checkpointer[Sentence]:
        store: ObjectStore = FAULTS[fault](self.store)
        return S3Checkpointer(
            SENTENCE,
            SmallPages(store, 2) if short else store,
            schema_version=version,
            migrations={1: backwards} if version == 2 else {},
            new_id=lambda: f"id-{next(self.ids)}",
            sleep=_no_pause,
        )

    def possible(self, place: Place) -> frozenset[Shown | None]:
        return self.steps.get(place, frozenset([None]))

    @rule(place=places, said=words, tasks=words, version=versions, fault=faults)
    def commit(self, place: Place, said: tuple[str, ...], tasks: tuple[str, ...], version: int, fault: str) -> None:
        """Exactly once, or a conflict, or nothing known; and then the same call again."""
        ours = Shown(said, version, tasks)
        checkpointer = self.checkpointer(version, fault).with_namespace(place[0])
        for _ in range(2):
            before = self.possible(place)
            try:
                self.run(checkpointer.commit(self.run_id, place[1], Sentence(words=list(said)), snapshots(tasks)))
            except StepConflictError:
                assert before - {None, ours}, "a conflict with nobody"
                self.steps[place] = before - {None, ours}
            except Crash:
                self.steps[place] = before | {ours} if None in before else before
            except StoreUnavailableError as error:
                self.steps[place] = before | {ours} if None in before and error.outcome_unknown else before
                continue
            else:
                assert before & {None, ours}, "committed over another"
                self.steps[place] = frozenset([ours])
            return

    @rule(place=places, said=words, version=versions, fault=faults)
    def save(self, place: Place, said: tuple[str, ...], version: int, fault: str) -> None:
        """The last writer wins, and the tasks of a commit go with its state."""
        ours = Shown(said, version, None)
        try:
            checkpointer = self.checkpointer(version, fault).with_namespace(place[0])
            self.run(checkpointer.save(self.run_id, place[1], Sentence(words=list(said))))
        except (StoreUnavailableError, Crash):
            self.steps[place] = self.possible(place) | {ours}
        else:
            self.steps[place] = frozenset([ours])

    @rule(place=places, tasks=words, fault=faults)
    def save_active(self, place: Place, tasks: tuple[str, ...], fault: str) -> None:
        """Shown for steps that are not committed."""
        try:
            checkpointer = self.checkpointer(2, fault).with_namespace(place[0])
            self.run(checkpointer.save_active(self.run_id, place[1], snapshots(tasks)))
        except (StoreUnavailableError, Crash):
            self.saved_tasks[place] = self.saved_tasks.get(place, frozenset([()])) | {tasks}
        else:
            self.saved_tasks[place] = frozenset([tasks])

    @rule(namespace=st.sampled_from(NAMESPACES), fresh=st.booleans(), short=st.booleans())
    def look(self, namespace: str, fresh: bool, short: bool) -> None:
        """`list`, `resume` and `load` agree with the model, in a worker that remembers and in one that does not."""
        reader = self.checkpointer(2, short=short) if fresh else self.remembering[short]
        reader = reader.with_namespace(namespace)
        listed = self.run(reader.list(self.run_id))
        for step in STEPS:
            self.look_at((namespace, step))
        assert listed == [step for step in STEPS if self.possible((namespace, step)) != {None}]
        found = self.run(reader.resume(self.run_id))
        assert (found.step if found else None) == (listed[-1] if listed else None)
        if found is not None:
            place = (namespace, found.step)
            (shown,) = self.possible(place)
            assert shown is not None
            assert tuple(found.state.words) == shown.words[:: 1 if shown.version == 2 else -1]
            expected = self.saved_tasks.get(place, {()}) if shown.tasks is None else {shown.tasks}
            assert tuple(task.node_name for task in found.active) in expected
            assert self.run(reader.load(self.run_id)) == found.state

    @rule(place=places)
    def look_at(self, place: Place) -> None:
        """Looks at the step, and drops the possibilities that did not come true."""
        reader = self.checkpointer(2).with_namespace(place[0])
        state = self.run(reader.load(self.run_id, place[1]))
        tasks = tuple(task.node_name for task in self.run(reader.load_active(self.run_id, place[1])))
        head = self.run(self.store.head(RunKeys("", self.run_id, place[0]).state(place[1])))
        metadata = head.attributes.metadata if head else {}
        assert (state is None) == (head is None)
        bound = "active" in metadata
        if not bound:
            assert tasks in self.saved_tasks.get(place, {()})
            self.saved_tasks[place] = frozenset([tasks])
        seen = None
        if state is not None:
            version = int(metadata["schema-version"])
            seen = Shown(tuple(state.words[:: 1 if version == 2 else -1]), version, tasks if bound else None)
        assert seen in self.possible(place), f"{place} shows {seen}; possible are {self.possible(place)}"
        self.steps[place] = frozenset([seen])

    @rule(place=places)
    def look_with_the_old_version(self, place: Place) -> None:
        """A state of a newer version is an error, never a guess."""
        self.look_at(place)
        (shown,) = self.possible(place)
        reader = self.checkpointer(1).with_namespace(place[0])
        if shown is not None and shown.version == 2:
            with pytest.raises(StateDecodingError, match="newer"):
                self.run(reader.load(self.run_id, place[1]))
        else:
            state = self.run(reader.load(self.run_id, place[1]))
            assert (tuple(state.words) if state else None) == (shown.words if shown else None)


def snapshots(tasks: tuple[str, ...]) -> list[ActiveSnapshot]:
    return [ActiveSnapshot(node_name=task) for task in tasks]


async def _no_pause(seconds: float) -> None:
    """The pause between two tries of a commit."""


def run_quietly(coroutine: Coroutine[Any, Any, T]) -> T:
    """Without a real event loop: on the memory store, all that a call waits for is its turn."""
    loop = World().loop
    task = loop.create_task(coroutine)
    loop.run_until_quiet()
    assert loop.complaints == []
    result: T = task.result()
    return result


class HistoriesInMemory(Histories):
    def __init__(self) -> None:
        super().__init__(MemoryStore(), run_quietly)


@pytest.mark.parametrize("examples", [80, pytest.param(10_000, marks=pytest.mark.long)])
def test_histories_on_the_memory_store_agree_with_the_model(examples: int) -> None:
    """Whatever happened before, every call shows what the model says is possible."""
    chosen = settings(
        max_examples=examples, stateful_step_count=25, deadline=None, derandomize=examples < 1000, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(HistoriesInMemory, settings=chosen)


@pytest.mark.parametrize("examples", [5, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_histories_on_s3_agree_with_the_model(settings_of_bucket: S3Settings, examples: int, transport: str) -> None:
    """The same on the real client, by each transport, in one bucket; each history has a run of its own."""
    of_bucket = settings_of_bucket.model_copy(update={"transport": transport})
    chosen = settings(
        max_examples=examples, stateful_step_count=12, deadline=None, derandomize=examples < 100, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with asyncio.Runner() as runner:

        async def opened() -> tuple[AsyncExitStack, ObjectStore]:
            async with AsyncExitStack() as stack:
                opened = await stack.enter_async_context(open_store(of_bucket))
                return stack.pop_all(), opened

        stack, store = runner.run(opened())

        class HistoriesOnS3(Histories):
            def __init__(self) -> None:
                super().__init__(store, runner.run)

        run_state_machine_as_test(HistoriesOnS3, settings=chosen)
        runner.run(stack.aclose())


@pytest.fixture
def settings_of_bucket(new_settings: Callable[..., S3Settings]) -> S3Settings:
    """A new, empty bucket on the moto server; `settings` is hypothesis's word here."""
    return new_settings()
