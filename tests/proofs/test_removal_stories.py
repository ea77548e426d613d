"""What removal beside work has broken before, one test each, with the story in a sentence; and wrong variants.

A `Stage` lets one actor run up to a request, and others act while it is held there.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

import pytest

from s3_checkpoint import (
    AccessDeniedError,
    RunAdmin,
    S3Checkpointer,
    StepConflictError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, Page, PutMode, Refused, StoredObject, Written
from s3_checkpoint.testing import (
    StoreWrapper,
    Verb,
)
from tests.proofs.ledger import RUN, WORK, Work
from tests.proofs.removal import OTHER, Actor, Removals, state_key, tasks_of
from tests.proofs.scheduler import Explorer, Pick, Scenario, Violation, World
from tests.proofs.test_removal import (
    OLD,
    SEPARATE,
    commits,
    commits_and_knows,
    deletes,
    forks,
    knows,
    play,
    prunes,
    resumes_and_commits,
    runs_ahead,
)

T = TypeVar("T")
HOUR = timedelta(hours=1)


class Stage:
    """A world whose actors run when they are told to. The ledger watches all the while."""

    def __init__(self, *steps: int, age: timedelta = OLD, **options: Any) -> None:
        self.world = World()
        self.ledger = Removals(self.world)
        self.options = options
        self.ledger.seed(RUN, *steps, age=age, **options)

    def actor(self, name: str, **options: Any) -> Actor:
        return Actor(self.ledger, name, **self.options, **options)

    def begin(self, actor: Actor, call: Coroutine[Any, Any, T]) -> Call[T]:
        return Call(self, actor, call)

    def run(self, actor: Actor, call: Coroutine[Any, Any, T]) -> T:
        """The call, from beginning to end, while all others are held."""
        return self.begin(actor, call).result()

    def passes(self, time: timedelta) -> None:
        self.world.clock.passed += time
        self.world.run_until_quiet()

    def steps(self, run: UUID = RUN) -> list[int]:
        return sorted(step for of, step in self.ledger.present() if of == run)


class Call(Generic[T]):
    """A call that an actor makes, request by request."""

    def __init__(self, stage: Stage, actor: Actor, call: Coroutine[Any, Any, T]) -> None:
        self.stage, self.actor = stage, actor.gate.actor
        self.outcome: list[T | Exception] = []

        async def program() -> None:
            try:
                self.outcome.append(await call)
            except Exception as error:  # noqa: BLE001 - handed to the test
                self.outcome.append(error)

        stage.world.start(program(), actor.gate)
        stage.world.run_until_quiet()

    def held_at(self, verb: Verb, under: str) -> Call[T]:
        """Continues up to the first request of this kind, which waits."""
        while True:
            waiting = [entry for entry in self.stage.world.waiting if entry.actor == self.actor]
            assert waiting, f"it never came to {verb} {under}"
            if any(entry.request.verb == verb and under in entry.request.key for entry in waiting):
                others = [e for e in waiting if e.request.verb != verb or under not in e.request.key]
                for entry in others:
                    self.stage.world.settle(entry, "done")
                return self
            self.stage.world.settle(waiting[0], "done")

    def result(self) -> T:
        """What it returns or raises, at its end."""
        while not self.outcome:
            waiting = [entry for entry in self.stage.world.waiting if entry.actor == self.actor]
            assert waiting, "it waits for nothing that will come"
            self.stage.world.settle(waiting[0], "done")
        if isinstance(self.outcome[0], Exception):
            raise self.outcome[0]
        return self.outcome[0]


def commit(actor: Actor, step: int, label: str, run: UUID = RUN) -> Coroutine[Any, Any, None]:
    return actor.checkpointer.commit(run, step, Work(label=label), tasks_of(label))


async def goes_to(rival: Actor, *steps: int) -> None:
    for step in steps:
        await rival.commit(step, f"rival:{step}")


HELD = pytest.mark.parametrize("options", [{}, SEPARATE], ids=["inline", "separate"])


@HELD
def test_a_loser_whose_step_is_pruned_before_it_looks_has_lost(options: dict[str, Any]) -> None:
    """Story: a worker was refused at step 3; before it looked why, step 3 was pruned; it tried again and had it."""
    stage = Stage(2, **options)
    worker, rival, janitor = stage.actor("worker"), stage.actor("rival"), stage.actor("janitor")
    losing = stage.begin(worker, commit(worker, 3, "worker")).held_at("PutObject", "/steps/")
    stage.run(rival, goes_to(rival, 3, 9))
    losing.held_at("GetObject", "/steps/")

    stage.passes(2 * HOUR)
    stage.run(janitor, janitor.prune(1))

    with pytest.raises(StepConflictError):
        losing.result()
    assert stage.steps() == [9]


@HELD
@pytest.mark.parametrize("stalled", [timedelta(minutes=31), 2 * HOUR])
def test_a_state_put_that_stalls_is_not_sent_after_half_the_grace_period(
    stalled: timedelta, options: dict[str, Any]
) -> None:
    """Story: a state PUT stalled until its step had been won by another and pruned; then it arrived and succeeded."""
    stage = Stage(2, **options)
    worker, rival, janitor = stage.actor("worker"), stage.actor("rival"), stage.actor("janitor")
    stalling = stage.begin(worker, commit(worker, 3, "worker")).held_at("PutObject", "/steps/")
    stage.run(rival, goes_to(rival, 3, 9))

    stage.passes(stalled)
    stage.run(janitor, janitor.prune(1))

    with pytest.raises((StoreUnavailableError, StepConflictError)):
        stalling.result()
    with pytest.raises(StepConflictError):
        stage.run(worker, commit(worker, 3, "worker"))
    assert stage.steps() == ([9] if stalled > HOUR else [3, 9])


@HELD
def test_a_superstep_of_two_hours_does_not_bring_a_pruned_step_back(options: dict[str, Any]) -> None:
    """Story: a worker resumed at 2 and computed for two hours; step 3 had been committed and pruned, and was again."""
    stage = Stage(2, **options)
    worker, rival, janitor = stage.actor("worker"), stage.actor("rival"), stage.actor("janitor")
    stage.run(worker, worker.resume())
    stage.run(rival, goes_to(rival, 3, 20))

    stage.passes(2 * HOUR)
    stage.run(janitor, janitor.prune(1))

    with pytest.raises(StepConflictError):
        stage.run(worker, commit(worker, 3, "worker"))
    assert stage.steps() == [20]


def test_a_begin_message_that_comes_again_begins_nothing() -> None:
    """Story: a begin message was delivered again after step 0 had been pruned, and the run began a second time."""
    stage = Stage()
    first, again, janitor = stage.actor("first"), stage.actor("again"), stage.actor("janitor")
    held = stage.begin(again, again.checkpointer.resume(RUN))
    assert held.result() is None
    stage.run(first, goes_to(first, 0, 1, 5))

    stage.passes(2 * HOUR)
    stage.run(janitor, janitor.prune(1))

    with pytest.raises(StepConflictError):
        stage.run(again, commit(again, 0, "again"))
    assert stage.steps() == [5]


def test_a_fresh_process_does_not_commit_a_pruned_step() -> None:
    """Story: a second worker, which had never seen the run, committed step 3 long after it had been pruned."""
    stage = Stage(2)
    rival, janitor = stage.actor("rival"), stage.actor("janitor")
    stage.run(rival, goes_to(rival, 3, 9))
    stage.passes(2 * HOUR)
    stage.run(janitor, janitor.prune(1))
    fresh = stage.actor("fresh")

    with pytest.raises(StepConflictError):
        stage.run(fresh, commit(fresh, 3, "fresh"))

    assert stage.steps() == [9]


def test_a_commit_whose_snapshot_has_been_pruned_is_no_success() -> None:
    """Story: stalled beyond an hour, the snapshot was pruned, the commit succeeded, and history raised ever after."""
    stage = Stage(2, 9, **SEPARATE)
    worker, janitor = stage.actor("worker"), stage.actor("janitor")
    stalling = stage.begin(worker, commit(worker, 3, "worker")).held_at("PutObject", "/steps/")

    stage.passes(2 * HOUR)
    stage.run(janitor, janitor.prune(5))

    with pytest.raises(StoreUnavailableError):
        stalling.result()
    stage.run(worker, worker.look_around())
    assert stage.steps() == [2, 9]


@HELD
@pytest.mark.parametrize("after", [("DeleteObjects", "/steps/"), ("DeleteObjects", "/active/"), ("ListObjectsV2", "")])
def test_a_run_deleted_while_a_commit_lands_is_gone_or_whole(after: tuple[Verb, str], options: dict[str, Any]) -> None:
    """Story: delete listed a snapshot, the commit stored the state that names it, and delete took the snapshot away."""
    stage = Stage(1, 2, **options)
    worker, deleter = stage.actor("worker"), stage.actor("deleter")
    committing = stage.begin(worker, commit(worker, 3, "worker")).held_at("PutObject", "/steps/")
    deleting = stage.begin(deleter, deleter.delete()).held_at(*after)

    committing.result()
    deleting.result()

    stage.run(worker, worker.look_around())
    assert stage.steps() in ([], [3])


def test_a_repeated_state_put_finds_its_snapshot_after_a_delete() -> None:
    """Story: a state PUT landed, `delete` removed it, the HTTP client sent it again, and its snapshot was gone."""
    stage = Stage(1, 2, **SEPARATE)
    worker, deleter = stage.actor("worker"), stage.actor("deleter")
    committing = stage.begin(worker, commit(worker, 3, "worker")).held_at("PutObject", "/steps/")
    stage.world.settle(stage.world.waiting[-1], "answer lost")
    deleting = stage.begin(deleter, deleter.delete()).held_at("DeleteObjects", "/active/")

    committing.result()
    deleting.result()

    stage.run(worker, worker.look_around())


class Locked(StoreWrapper):
    """One key cannot be deleted (a deny policy, a legal hold); S3 deletes the rest of the batch, and says so."""

    def __init__(self, store: ObjectStore, part: str) -> None:
        super().__init__(store)
        self.part = part

    async def delete(self, keys: Sequence[str]) -> None:
        await self.store.delete([key for key in keys if self.part not in key])
        if any(self.part in key for key in keys):
            raise AccessDeniedError(self.bucket, self.part, "s3:DeleteObject")


@HELD
@pytest.mark.parametrize("call", ["prune", "delete"])
def test_a_state_that_may_not_be_deleted_keeps_its_tasks(call: str, options: dict[str, Any]) -> None:
    """Story: states and snapshots shared a request; a locked state stayed without its snapshot, and resume raised."""
    stage = Stage(1, 2, 3, **options)
    janitor = stage.actor("janitor", wrap=lambda store: Locked(store, "/steps/00000000000000000002"))

    with pytest.raises(AccessDeniedError):
        stage.run(janitor, janitor.prune(1) if call == "prune" else janitor.delete())

    reader = stage.actor("reader")
    stage.run(reader, reader.look_around())
    assert 2 in stage.steps()


@HELD
def test_a_fork_of_a_step_that_is_pruned_before_it_ends_says_what_is_so(options: dict[str, Any]) -> None:
    """Story: the source was pruned while it was forked; nothing was written, said the error, and the run was there."""
    stage = Stage(1, 2, **options)
    forker, janitor = stage.actor("forker"), stage.actor("janitor")
    forking = stage.begin(forker, forker.fork(1)).held_at("PutObject", "/steps/")

    stage.run(janitor, janitor.prune(1))

    assert forking.result() is (stage.steps(OTHER) == [0])
    stage.run(forker, forker.look_around(OTHER))


@HELD
def test_a_fork_whose_answer_was_lost_is_found_again_when_its_source_is_gone(options: dict[str, Any]) -> None:
    """Story: a fork landed unanswered, its source was pruned, and the same call again said that nothing was there."""
    stage = Stage(1, 2, **options)
    forker, janitor = stage.actor("forker"), stage.actor("janitor")
    forking = stage.begin(forker, forker.admin.fork(RUN, 1, OTHER)).held_at("PutObject", "/steps/")
    entry = next(e for e in stage.world.waiting if "/steps/" in e.request.key)
    stage.world.settle(entry, "landed unanswered")
    with pytest.raises(StoreUnavailableError):
        forking.result()
    stage.run(janitor, janitor.prune(1))

    assert stage.run(forker, forker.admin.fork(RUN, 1, OTHER)) == OTHER


def test_exactly_one_of_two_forks_to_one_run_wins() -> None:
    """Story: two forks of different steps to one id both succeeded, and the run had the steps 0 and 2."""
    stage = Stage(0, 1, 2)
    one, two = stage.actor("one"), stage.actor("two")
    first = stage.begin(one, one.fork(1)).held_at("PutObject", "/steps/")
    second = stage.begin(two, two.fork(2)).held_at("PutObject", "/steps/")

    assert sorted([first.result(), second.result()]) == [False, True]
    assert stage.steps(OTHER) == [0]


def test_a_fork_and_a_worker_that_begins_the_run_contend_for_one_key() -> None:
    """Story: a fork to an id that a worker was beginning put a second beginning beside the worker's."""
    stage = Stage(0, 1, 2)
    forker, worker = stage.actor("forker"), stage.actor("worker")
    forking = stage.begin(forker, forker.fork(2)).held_at("PutObject", "/steps/")

    assert stage.run(worker, worker.commit(0, "worker", OTHER))
    assert not forking.result()
    assert stage.steps(OTHER) == [0]


class IgnoresPrefix(StoreWrapper):
    """As a store or gateway does that does not know the parameter: it lists everything."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return await self.store.list("", **options)


@pytest.mark.parametrize("call", ["delete", "prune"])
def test_a_store_that_ignores_prefixes_loses_nothing(call: str) -> None:
    """Story: on a store that ignored `Prefix`, deleting one run emptied the bucket."""
    stage = Stage(1, 2)
    worker, janitor = stage.actor("worker"), stage.actor("janitor", wrap=IgnoresPrefix)
    stage.run(worker, worker.commit(0, "worker", OTHER))

    with pytest.raises(StoreError, match=r"prefix|Prefix"):
        stage.run(janitor, janitor.delete(OTHER) if call == "delete" else janitor.prune(1, OTHER))

    assert (stage.steps(), stage.steps(OTHER)) == ([1, 2], [0])


@pytest.mark.parametrize("name", ["a\x01b.json", "a\x7fb", "<&>", "ü b", "%zz"])
async def test_a_run_with_a_key_that_xml_cannot_say_is_deleted(s3_store: S3ObjectStore, name: str) -> None:
    """Story: one key with a control character under a run, and the run could not be deleted at all."""
    checkpointer: S3Checkpointer[Work] = S3Checkpointer(WORK, s3_store)
    await checkpointer.commit(RUN, 0, Work(label="a"), tasks_of("a"))
    await s3_store.put(f"runs/{RUN}/{name}", b"{}", ObjectAttributes(), mode="overwrite")

    await RunAdmin(checkpointer).delete(RUN)

    assert list((await s3_store.list("")).keys) == []


def superstep(actor: Actor, known: int) -> Coroutine[Any, Any, int | None]:
    actor.forget()
    return actor.superstep(known=known)


@HELD
def test_a_stale_message_does_not_commit_again_while_prune_removes_its_step(options: dict[str, Any]) -> None:
    """A batch is removed in any order: step 1 is there still, step 2 is gone, and both are old."""
    stage = Stage(1, 2, 3, **options)
    message, janitor = stage.actor("message"), stage.actor("janitor")
    pruning = stage.begin(janitor, janitor.prune(1)).held_at("DeleteObjects", "/steps/")
    (batch,) = stage.world.waiting
    stage.world.take(Pick(batch, part=state_key(RUN, 2)))
    assert stage.steps() == [1, 3]

    assert stage.run(message, superstep(message, 1)) == 3

    pruning.result()
    assert stage.steps() == [3]


def test_a_gap_filled_message_by_message_does_not_reach_a_pruned_step() -> None:
    """Each message knows a young step, and the gap ends at an old one, which `prune` leaves behind a young one."""
    stage = Stage(0, age=timedelta(0))
    rival, message, janitor = stage.actor("rival"), stage.actor("message"), stage.actor("janitor")
    stage.run(rival, goes_to(rival, 4, 5))
    for step, pause in enumerate((5, 31, 29)):
        stage.passes(timedelta(minutes=3))
        holding = stage.begin(message, superstep(message, step)).held_at("PutObject", "/steps/")
        stage.passes(timedelta(minutes=pause))
        holding.result()
    assert stage.steps() == [0, 1, 2, 3, 4, 5]

    stage.passes(timedelta(minutes=1))
    stage.run(janitor, janitor.prune(1))

    assert stage.run(message, superstep(message, 3)) == 5
    assert 4 in stage.steps()


# Wrong variants ----------------------------------------------------------------------------------------------------


class TriesAgainAfter412(StoreWrapper):
    """Wrong: every refusal is taken for a 409, after which the step may be free again."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        answer = await self.store.put(key, body, attributes, mode=mode)
        return Refused("ConditionalRequestConflict") if isinstance(answer, Refused) else answer


class SeesNoFloor(StoreWrapper):
    """Wrong: how far the run was pruned is not looked at."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return Page() if prefix.endswith("/pruned/") else await self.store.list(prefix, **options)


class OneBatch(StoreWrapper):
    """Wrong: states go in one request with the snapshots."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.held: list[str] = []

    async def delete(self, keys: Sequence[str]) -> None:
        if all("/steps/" in key for key in keys):
            self.held += keys
        else:
            keys, self.held = [*self.held, *keys], []
            await self.store.delete(keys)


class ListsOnce(StoreWrapper):
    """Wrong: what comes after the first LIST is not seen."""

    listed = False

    async def list(self, prefix: str, **options: Any) -> Page:
        if self.listed:
            return Page()
        self.listed = True
        return await self.store.list(prefix, **options)


class ForksInPlace(StoreWrapper):
    """Wrong: a fork begins at the number that its step had."""

    step = ""

    def place(self, key: str) -> str:
        return key.replace("/steps/" + "0" * 20, self.step) if str(OTHER) in key and self.step else key

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        if str(RUN) in key and "/steps/" in key:
            self.step = key[key.index("/steps/") :].removesuffix(".json")
        return await self.store.get(self.place(key), max_bytes=max_bytes)

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.store.put(self.place(key), body, attributes, mode=mode)


class AlwaysYoung(StoreWrapper):
    """Wrong: whatever the age of the known step, the next one counts as never pruned."""

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        stored = await self.store.get(key, max_bytes=max_bytes)
        return stored and replace(stored, head=replace(stored.head, date=stored.head.last_modified))


class NotMarked(StoreWrapper):
    """Wrong: a step that is committed out of order does not say so."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        metadata = {name: value for name, value in attributes.metadata.items() if name != "out-of-order"}
        return await self.store.put(key, body, replace(attributes, metadata=metadata), mode=mode)


def without_grace() -> tuple[str, Any]:
    async def program(actor: Actor) -> None:
        await actor.prune(1, grace=timedelta(0))

    return "pruner", program


def goes_ahead(*steps: int) -> tuple[str, Any]:
    async def program(actor: Actor) -> None:
        for step in steps:
            await actor.commit(step, f"{actor.name}:{step}")
        await actor.prune(1, grace=timedelta(0))

    return "rival", program


def deletes_without_grace() -> tuple[str, Any]:
    async def program(actor: Actor) -> None:
        await actor.delete(grace=timedelta(0))

    return "deleter", program


BRIEF: dict[str, Any] = {"steps": (2,), "snapshot_objects": "when_large"}
"""Fewer requests: the order that breaks the promise is found sooner."""
WRONG: dict[str, tuple[Scenario, str]] = {
    "412 and then nothing is tried again": (
        play(commits(3), goes_ahead(3, 4), wraps={"worker": TriesAgainAfter412}, **BRIEF),
        "was 'rival1:3', and is now 'worker0:3'",
    ),
    "states are pruned without grace": (
        play(commits(3), goes_ahead(3, 4), **BRIEF),
        "was 'rival1:3', and is now 'worker0:3'",
    ),
    "the floor is not looked at": (
        play(resumes_and_commits(3), runs_ahead(3, 4), wraps={"worker": SeesNoFloor}, **BRIEF),
        "was 'rival1:3', and is now 'worker0:3'",
    ),
    "a known step is believed at any age": (
        play(knows(1), prunes(), steps=(1, 2, 3), wraps={"message": AlwaysYoung}),
        "step 2 of .* was 'old2', and is now 'message0:2'",
    ),
    "a step out of order is believed": (
        play(commits_and_knows(2), prunes(), steps=(1, 3, 4), wraps={"worker": NotMarked}),
        "step 3 of .* was 'old3', and is now 'worker0:3'",
    ),
    "snapshots go together with states": (
        play(prunes(), wraps={"pruner": OneBatch}, **SEPARATE),
        "is torn: its tasks are gone",
    ),
    "a young snapshot is deleted": (
        play(commits(3), deletes_without_grace(), **SEPARATE),
        "is torn: its tasks are gone",
    ),
    "delete lists once": (
        play(commits(3), deletes(), wraps={"deleter": ListsOnce}),
        "has not seen that nothing is left",
    ),
    "a fork begins where its source was": (play(forks(1), forks(2), wraps={"forker": ForksInPlace}), "begins at step"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_variant_is_found_out(name: str) -> None:
    """The explorer can fail: each shortcut breaks a promise in some order, and it finds one."""
    scenario, story = WRONG[name]

    with pytest.raises(Violation, match=story):
        Explorer(scenario, budget=0, leaps=[2 * HOUR] if "floor" in name else []).explore()
