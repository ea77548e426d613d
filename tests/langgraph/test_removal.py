"""Removing beside work: each test is a sequence that once left a thread that nobody could read."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import ormsgpack
import pytest
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from s3_checkpoint import (
    AccessDeniedError,
    InvalidArgumentError,
    MemoryStore,
    StateDecodingError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, PutMode, Refused, Written
from s3_checkpoint.testing import (
    Aim,
    Crash,
    CrashAfter,
    CrashBefore,
    Denied,
    Request,
    Send,
    StoreWrapper,
)
from s3_checkpoint.testing.counting import Counting
from s3_checkpoint.testing.wrappers import T
from tests.langgraph.clocks import BIG, HOUR, Clock, replace, reuse, values_of
from tests.langgraph.counting import at, chain, checkpoint, id_of, put


def keys_of(store: MemoryStore, part: str = "") -> list[str]:
    return [key.decode() for key in store._keys if part in key.decode()]


def ids(saver: S3Saver, thread: str) -> list[str]:
    return [id_of(item.config) for item in saver.list({"configurable": {"thread_id": thread}})]


class Between(StoreWrapper):
    """Calls `then` once, ahead of the request that `aim` meets: another process acts in that very moment."""

    def __init__(self, store: ObjectStore, aim: Aim, then: Callable[[], object]) -> None:
        super().__init__(store, aim)
        self.then = then

    async def around(self, request: Request, send: Send[T]) -> T:
        if self.aim.meets(request):
            self.then()
        return await send()


def checkpoint_put(first: int = 1) -> Aim:
    return Aim("PutObject", "/c.", first)


REMOVALS: dict[str, Callable[[S3Saver], None]] = {
    "prune": lambda saver: saver.prune(["t"]),
    "delete_for_runs": lambda saver: saver.delete_for_runs(["first"]),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_put_of_an_older_checkpoint_s_node_has_its_values_after_a_removal(removal: str) -> None:
    """Story: a human updates the state and prunes while a node runs; its checkpoint named a value that was gone."""
    clock = Clock()
    store = clock.store()
    worker, human = clock.saver(store), clock.saver(store)
    parent = put(worker, at("t"), {"big": BIG, "n": 0}, run_id="first")
    human.get_tuple(at("t"))
    replace(human, parent, run_id="human")
    REMOVALS[removal](human)

    child = reuse(worker, parent, 2)

    assert values_of(human.get_tuple(child)) == {"big": BIG, "n": 2}
    assert values_of(clock.saver(store).get_tuple(at("t"))) == {"big": BIG, "n": 2}


@pytest.mark.parametrize("hours", [0.4, 0.6, 1.5, 2.5, 10])
@pytest.mark.parametrize("prunes", [1, 2, 3])
def test_puts_are_whole_whatever_the_time_since_a_removal(hours: float, prunes: int) -> None:
    """Story: a node ran for hours, in which prunes marked the value its checkpoint reuses, and removed it."""
    clock = Clock()
    store = clock.store()
    worker, human = clock.saver(store), clock.saver(store)
    parent = put(worker, at("t"), {"big": BIG, "n": 0})
    replace(human, parent)
    for _ in range(prunes):
        human.prune(["t"])
        clock.passed += timedelta(hours=hours)

    child = reuse(worker, parent, 2)
    human.prune(["t"])
    human.prune(["t"])

    assert values_of(human.get_tuple(child)) == {"big": BIG, "n": 2}


def test_a_value_is_marked_when_its_last_reference_goes_and_removed_a_grace_period_later() -> None:
    """Removing takes two prunes, so that every put that relied on the value has ended, or sees the mark."""
    clock = Clock()
    store = clock.store()
    counting = Counting(store)
    saver = clock.saver(counting)
    replace(saver, put(saver, at("t"), {"big": BIG}))
    costs = []
    for passes in (timedelta(0), 0.9 * HOUR, 0.1 * HOUR, HOUR):
        clock.passed += passes
        counting.reset()
        saver.prune(["t"])
        costs.append((dict(counting.requests), len(keys_of(store, "/values/"))))

    assert costs == [
        ({"LIST": 1, "DELETE": 1, "HEAD": 1, "COPY": 1}, 1),
        ({"LIST": 1}, 1),
        ({"LIST": 1, "HEAD": 1, "DELETE": 1}, 0),
        ({"LIST": 1}, 0),
    ]


def test_a_marked_value_is_not_relied_on_but_stored_again() -> None:
    """Story: a put saw the value a moment before it was removed, by a prune of an hour before."""
    clock = Clock()
    store = clock.store()
    saver, other = clock.saver(store), clock.saver(store)
    parent = put(saver, at("t"), {"big": BIG})
    latest = reuse(saver, parent)
    (value,) = keys_of(store, "/values/")
    other.get_tuple(latest)
    head = store._objects[value].head
    marked = ObjectAttributes(head.attributes.content_type, None, {"unused-since": "2026-01-01"})
    saver._opening.call(lambda threads: threads.objects.copy(value, value, attributes=marked))

    reader = clock.saver(store)
    reader.get_tuple(latest)
    child = reuse(reader, latest, 3)
    saver._opening.call(lambda threads: threads.objects.delete([value]))

    assert values_of(other.get_tuple(child)) == {"big": BIG, "n": 3}


def test_a_put_that_reuses_what_it_saw_long_ago_looks_once_and_no_more() -> None:
    """1 HEAD per reused value, and only from half the grace period on."""
    clock = Clock()
    counting = Counting(clock.store())
    saver = clock.saver(counting)
    parent = put(saver, at("t"), {"big": BIG, "n": 0})
    costs = []
    for n, passes in enumerate([0.4 * HOUR, 0.2 * HOUR, 0.4 * HOUR, 2 * HOUR], 1):
        clock.passed += passes
        counting.reset()
        parent = reuse(saver, parent, n)
        costs.append(dict(counting.requests))

    assert costs == [{"PUT": 1}, {"HEAD": 1, "PUT": 1}, {"PUT": 1}, {"HEAD": 1, "PUT": 1}]


def test_a_frozen_process_does_not_rely_on_a_monotonic_clock_that_stood_still() -> None:
    """Story: a Lambda sandbox was frozen for hours between two supersteps."""
    clock = Clock()
    counting = Counting(clock.store())
    saver = S3Saver(counting, now=clock.now, monotonic=lambda: 0.0)
    parent = put(saver, at("t"), {"big": BIG, "n": 0})
    clock.passed += HOUR
    counting.reset()

    reuse(saver, parent)

    assert counting.requests == {"HEAD": 1, "PUT": 1}


def test_a_put_held_up_between_its_values_and_its_checkpoint_looks_again() -> None:
    """Story: two prunes came between a put's values and its checkpoint, hours apart."""
    clock = Clock()
    store = clock.store()
    human = clock.saver(store)
    first = put(human, at("t"), {"n": 0})

    def hours_pass() -> None:
        clock.passed += 2 * HOUR
        human.prune(["t"])
        clock.passed += 2 * HOUR
        human.prune(["t"])

    class HoldsUp(StoreWrapper):
        """After the value has been stored, and before its put continues."""

        async def around(self, request: Request, send: Send[T]) -> T:
            answer = await send()
            if self.aim.meets(request):
                hours_pass()
            return answer

    worker = clock.saver(HoldsUp(store, Aim("PutObject", "/values/")))
    child = put(worker, first, {"big": BIG}, run_id="run")

    assert values_of(human.get_tuple(child)) == {"big": BIG}


@pytest.mark.parametrize("removal", ["prune", "delete_thread", "delete_for_runs"])
def test_a_removal_between_a_put_s_values_and_its_checkpoint_leaves_it_whole(removal: str) -> None:
    """Story: the values were removed as nobody's, and then the checkpoint that names them was stored."""
    clock = Clock()
    store = clock.store()
    human = clock.saver(store)
    first = put(human, at("t"), {"big": "y" * 100_000}, run_id="run")
    removals: dict[str, Callable[[], None]] = {
        "prune": lambda: human.prune(["t"]),
        "delete_thread": lambda: human.delete_thread("t"),
        "delete_for_runs": lambda: human.delete_for_runs(["run"]),
    }
    worker = clock.saver(Between(store, checkpoint_put(), removals[removal]))

    child = put(worker, first, {"big": BIG}, run_id="run")

    assert values_of(human.get_tuple(child)) == {"big": BIG}


def test_a_put_after_its_thread_was_deleted_does_not_bring_it_back_torn(caplog: pytest.LogCaptureFixture) -> None:
    """Story: a user deleted a chat while its agent ran; from then on every message to that thread id failed."""
    clock = Clock()
    store = clock.store()
    worker, human = clock.saver(store), clock.saver(store)
    parent = put(worker, at("t"), {"big": BIG, "n": 0})
    put(human, at("other"), {"n": 1})
    human.delete_thread("t")
    for n in range(3):
        parent = reuse(worker, parent, n)

    with caplog.at_level(logging.WARNING, "s3_checkpoint.langgraph"):
        assert human.get_tuple(at("t")) is None
        assert human.get_tuple(parent) is None
        assert ids(human, "t") == []
        assert len(list(human.list(None))) == 1
    assert "after its thread was deleted" in caplog.text
    begun = put(human, at("t"), {"n": 1})
    assert values_of(human.get_tuple(at("t"))) == {"n": 1}
    human.delete_thread("t")
    assert keys_of(store, "/t/") == []
    assert human.get_tuple(begun) is None


def test_a_put_after_its_own_process_deleted_the_thread_is_whole() -> None:
    """Also one that had been encoded when the thread was deleted: what was seen before is not relied on any more."""
    clock = Clock()
    store = clock.store()
    saver = clock.saver(store)
    parent = put(saver, at("t"), {"big": BIG, "n": 0})
    call = saver._calls.put(parent, checkpoint({"big": BIG, "n": 1}, n=1), {}, {"n": 1})
    saver.delete_thread("t")

    child = call.run(saver._opening)

    assert values_of(saver.get_tuple(child)) == {"big": BIG, "n": 1}


def test_a_repeated_checkpoint_put_looks_after_its_values() -> None:
    """Story: the answer was lost, the thread deleted, and the HTTP client's repeat brought the checkpoint back."""

    class Repeats(StoreWrapper):
        """As `S3ObjectStore` tells of a repeat."""

        async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
            answer = await self.store.put(key, body, attributes, mode=mode)
            if self.aim.meets(Request("PutObject", key, mode)) and isinstance(answer, Written):
                human.delete_thread("t")
                await self.store.put(key, body, attributes, mode=mode)
                return Written(answer.etag, repeated=True)
            return answer

    clock = Clock()
    store = clock.store()
    human = clock.saver(store)
    first = put(human, at("t"), {"n": 0})
    worker = clock.saver(Repeats(store, checkpoint_put()))

    child = put(worker, first, {"big": BIG})

    assert values_of(human.get_tuple(child)) == {"big": BIG}
    assert values_of(human.get_tuple(at("t"))) == {"big": BIG}


def test_a_delta_snapshot_that_a_checkpoint_leaves_out_is_stored_again_from_the_store() -> None:
    """Story: LangGraph leaves a snapshot out of later checkpoints, so the put that reuses it has no content."""
    clock = Clock()
    store = clock.store()
    worker, human = clock.saver(store), clock.saver(store)
    seed = checkpoint({"d": _DeltaSnapshot(["seed"]), "n": 0})
    parent = worker.put(at("t"), seed, {}, {"d": 1, "n": 1})
    replace(human, parent)
    human.prune(["t"])
    if keys := keys_of(store, "/values/"):  # kept as the seed of a delta channel: mark it by hand
        head = store._objects[keys[0]].head
        marked = ObjectAttributes(head.attributes.content_type, None, {"unused-since": "2026-01-01"})
        human._opening.call(lambda threads: threads.objects.copy(keys[0], keys[0], attributes=marked))
    clock.passed += HOUR

    child = worker.put(parent, checkpoint({"n": 1}, n=2, d=1), {}, {"n": 2})
    human._opening.call(lambda threads: threads.objects.delete(keys))

    assert values_of(human.get_tuple(child)) == {"d": _DeltaSnapshot(["seed"]), "n": 1}


def test_a_delta_snapshot_that_is_gone_fails_the_put_rather_than_losing_the_channel() -> None:
    """The thread has been deleted; a checkpoint without the snapshot would show an empty channel."""
    clock = Clock()
    store = clock.store()
    worker, human = clock.saver(store), clock.saver(store)
    parent = worker.put(at("t"), checkpoint({"d": _DeltaSnapshot(["seed"]), "n": 0}), {}, {"d": 1, "n": 1})
    human.delete_thread("t")
    clock.passed += HOUR

    with pytest.raises(StoreError, match="deleted with its thread"):
        worker.put(parent, checkpoint({"n": 1}, n=2, d=1), {}, {"n": 2})

    assert human.get_tuple(at("t")) is None


def test_prune_never_removes_the_last_checkpoint_that_can_be_read() -> None:
    """Story: the newest checkpoint had lost a value, and prune kept that one alone."""
    store = MemoryStore()
    with S3Saver(store, grace=timedelta(0)) as saver:
        old, good = chain(saver, at("t"), 2)
        broken = put(saver, good, {"big": BIG})
        newer = put(saver, broken, {"big": f"{BIG}2"})
        saver._opening.call(lambda threads: threads.objects.delete(keys_of(store, "/values/")))

        saver.prune(["t"])
        saver.prune(["t"])

        assert values_of(saver.get_tuple(good)) == {"n": 1}
        assert saver.get_tuple(old) is None
        for config in (broken, newer):
            with pytest.raises(StateDecodingError, match="not there"):
                saver.get_tuple(config)


def damage(store: MemoryStore, saver: S3Saver, thread: str, how: str) -> None:
    if how == "no thread id":
        saver._opening.call(lambda threads: threads.objects.delete(keys_of(store, f"/{thread}/id")))
        return
    part = {"value": "/values/", "writes": "/w.", "value gone": "/values/"}.get(how, "/c.")
    (key,) = (
        keys_of(store, f"{thread}/!/values/")
        if part == "/values/"
        else [key for key in keys_of(store, f"threads/{thread}/") if part in key]
    )
    if how == "value gone":
        saver._opening.call(lambda threads: threads.objects.delete([key]))
        return
    body = b"\xff" if how == "undecodable" else b"garbage"
    attributes = store._objects[key].head.attributes
    saver._opening.call(lambda threads: threads.objects.put(key, body, attributes, mode="overwrite"))


@pytest.mark.parametrize(
    "options", [{}, {"limit": 3}, {"filter": {"source": "loop"}}, {"limit": 3, "filter": {"step": 0}}]
)
@pytest.mark.parametrize("how", ["value gone", "value", "writes", "checkpoint"])
def test_one_broken_thread_hides_no_other_from_the_list_of_all(
    caplog: pytest.LogCaptureFixture, how: str, options: dict[str, Any]
) -> None:
    """Story: one thread with a lost value made `list(None)` fail for all of them."""
    store = MemoryStore()
    with S3Saver(store, cache_bytes=0) as saver:
        put(saver, at("before"), {"n": 1})
        saver.put_writes(put(saver, at("bad"), {"big": BIG}), [("x", 1)], "task")
        put(saver, at("after"), {"n": 2})
        put(saver, at("later"), {"n": 3})
        damage(store, saver, "bad", how)

        with caplog.at_level(logging.WARNING, "s3_checkpoint.langgraph"):
            found = [item.config["configurable"]["thread_id"] for item in saver.list(None, **options)]

        assert found == ["later", "after", "before"][: options.get("limit")]
        assert "bad" in caplog.text
        for asked in (lambda: saver.get_tuple(at("bad")), lambda: list(saver.list(at("bad")))):
            with pytest.raises(StateDecodingError):
                asked()


def test_a_thread_whose_id_is_lost_hides_no_other_from_the_list_of_all(caplog: pytest.LogCaptureFixture) -> None:
    """Its key holds a hash of its id, and the object with the id itself is gone: it is read by name."""
    store = MemoryStore()
    name = "long" * 100
    with S3Saver(store) as saver:
        put(saver, at("t"), {"n": 1})
        for n in range(3):
            put(saver, at(name), {"n": n})
        saver._opening.call(
            lambda threads: threads.objects.delete([key for key in keys_of(store) if key.endswith("/id")])
        )

        with caplog.at_level(logging.WARNING, "s3_checkpoint.langgraph"):
            found = [item.config["configurable"]["thread_id"] for item in saver.list(None, limit=2)]

        assert found == ["t"]
        assert "left out" in caplog.text
        assert values_of(saver.get_tuple(at(name))) == {"n": 2}


def test_a_thread_that_the_serializer_refuses_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Not even where it is all that a chunk holds."""

    class Refuses:
        def __init__(self, serde: Any) -> None:
            self.dumps_typed = serde.dumps_typed
            self._serde = serde

        def loads_typed(self, payload: tuple[str, bytes]) -> Any:
            value = self._serde.loads_typed(payload)
            if value == "poison":
                raise ValueError("the secret text of a user")
            return value

    store = MemoryStore()
    with S3Saver(store) as saver:
        put(saver, at("t"), {"n": 1})
        for n in range(10):
            put(saver, at(f"bad-{n}"), {"n": "poison"})
        saver.serde = Refuses(saver.serde)

        with caplog.at_level(logging.WARNING, "s3_checkpoint.langgraph"):
            assert [item.config["configurable"]["thread_id"] for item in saver.list(None)] == ["t"]
            assert [item.config["configurable"]["thread_id"] for item in saver.list(None, limit=1)] == ["t"]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("crash", [CrashBefore, CrashAfter])
@pytest.mark.parametrize("number", range(1, 12))
def test_a_copy_cut_short_is_the_thread_as_it_was_earlier_and_another_call_completes_it(
    crash: Callable[[ObjectStore, Aim], ObjectStore], number: int
) -> None:
    """Story: the newest checkpoint was copied first, so a cut copy looked whole, and had no history."""
    store = MemoryStore()
    with S3Saver(store) as saver:
        config = put(saver, at("s"), {"big": BIG, "n": 0}, run_id="run")
        for n in range(1, 5):
            saver.put_writes(config, [("x", n)], "task")
            config = reuse(saver, config, n)
        put(saver, at("s", "inner"), {"n": 9})
        whole = list(saver.list({"configurable": {"thread_id": "s"}}))

        with S3Saver(crash(store, Aim("CopyObject", first=number))) as copier, pytest.raises(Crash):
            copier.copy_thread("s", "t")

        cut = list(saver.list({"configurable": {"thread_id": "t"}}))
        assert [item.checkpoint for item in cut] == [item.checkpoint for item in whole[len(whole) - len(cut) :]]
        assert [item.pending_writes for item in cut] == [item.pending_writes for item in whole[len(whole) - len(cut) :]]
        saver.copy_thread("s", "t")
        again = list(saver.list({"configurable": {"thread_id": "t"}}))
        assert [(item.checkpoint, item.pending_writes) for item in again] == [
            (item.checkpoint, item.pending_writes) for item in whole
        ]


def test_a_source_that_is_pruned_while_it_is_copied_gives_a_whole_copy() -> None:
    """What has been removed since the listing is left out; the others are all there."""
    clock = Clock()
    store = clock.store()
    saver = clock.saver(store, grace=timedelta(0))
    config = put(saver, at("s"), {"big": f"{BIG}0"})
    for n in range(4):
        config = put(saver, config, {"big": f"{BIG}{n}"})
    copier = clock.saver(Between(store, Aim("CopyObject", "/values/", first=2), lambda: saver.prune(["s"])))

    copier.copy_thread("s", "t")

    assert [values_of(item) for item in saver.list(at("t"))] == [{"big": f"{BIG}3"}]


def test_copying_a_source_with_a_lost_value_copies_what_is_older_and_says_so() -> None:
    """A copy of it would be torn."""
    store = MemoryStore()
    with S3Saver(store) as saver:
        good = put(saver, at("s"), {"n": 1})
        put(saver, put(saver, good, {"big": BIG}), {"n": 3})
        saver._opening.call(lambda threads: threads.objects.delete(keys_of(store, "/values/")))

        with pytest.raises(StateDecodingError, match="not there"):
            saver.copy_thread("s", "t")

        assert ids(saver, "t") == [id_of(good)]


def test_a_source_that_is_deleted_while_it_is_copied_is_an_error() -> None:
    store = MemoryStore()
    with S3Saver(store) as saver:
        chain(saver, at("s"), 3)
        copier = S3Saver(Between(store, Aim("CopyObject", first=2), lambda: saver.delete_thread("s")))

        with pytest.raises(StoreError, match="deleted while it was copied"):
            copier.copy_thread("s", "t")

        assert [values_of(item) for item in saver.list(at("t"))] == [{"n": 0}]


@pytest.mark.parametrize("call", ["delete_thread", "prune", "delete_for_runs"])
def test_a_checkpoint_that_may_not_be_deleted_stays_whole(call: str) -> None:
    """Story: a checkpoint under a legal hold stayed, and its values and writes went in the same request."""

    class Holds(StoreWrapper):
        async def delete(self, keys: Any) -> None:
            held = [key for key in keys if "/c." in key]
            await self.store.delete([key for key in keys if key not in held])
            if held:
                raise AccessDeniedError(self.bucket, held[0], "s3:DeleteObject", "AccessDenied")

    store = MemoryStore()
    with S3Saver(Holds(store), grace=timedelta(0)) as saver:
        held = put(saver, at("t"), {"big": BIG}, run_id="run")
        saver.put_writes(held, [("x", 1)], "task")
        replace(saver, held)

        with pytest.raises(AccessDeniedError):
            {
                "delete_thread": lambda: saver.delete_thread("t"),
                "prune": lambda: saver.prune(["t"]),
                "delete_for_runs": lambda: saver.delete_for_runs(["run"]),
            }[call]()

        found = saver.get_tuple(held)
        assert values_of(found) == {"big": BIG}
        assert found is not None
        assert found.pending_writes == [("task", "x", 1)]


def test_delete_thread_continues_until_a_listing_is_empty() -> None:
    """Story: a worker put a checkpoint after the listing; the thread was back, without what it refers to."""
    clock = Clock()
    store = clock.store()
    worker = clock.saver(store)
    parent = put(worker, at("t"), {"big": BIG, "n": 0}, run_id="run")
    human = clock.saver(Between(store, Aim("DeleteObjects", "/c."), lambda: reuse(worker, parent, run_id="run")))

    human.delete_thread("t")

    assert keys_of(store) == []


def test_delete_for_runs_continues_until_listings_show_none() -> None:
    """Story: the run put another checkpoint after its namespace was listed."""
    clock = Clock()
    store = clock.store()
    worker = clock.saver(store)
    parent = put(worker, at("t"), {"n": 0}, run_id="run")
    human = clock.saver(
        Between(store, Aim("DeleteObjects", "/c."), lambda: put(worker, parent, {"n": 1}, run_id="run"))
    )

    human.delete_for_runs(["run"])

    assert keys_of(store) == []


def test_a_value_of_a_crashed_put_goes_a_grace_period_later_or_at_once_without_one() -> None:
    """It may belong to a put in flight for as long; nothing else ever refers to it."""
    clock = Clock()
    store = clock.store()
    saver = clock.saver(store)
    put(saver, at("t"), {"n": 1})
    with pytest.raises(Crash):
        put(clock.saver(CrashBefore(store, checkpoint_put())), at("t"), {"big": BIG})

    saver.prune(["t"])
    saver.delete_thread("t")
    assert len(keys_of(store)) == 1
    clock.passed += HOUR
    saver.delete_thread("t")
    assert keys_of(store) == []

    with pytest.raises(Crash):
        put(clock.saver(CrashBefore(store, checkpoint_put())), at("t"), {"big": BIG})
    clock.saver(store, grace=timedelta(0)).delete_thread("t")
    assert keys_of(store) == []


def test_a_value_that_a_prune_has_orphaned_goes_with_its_thread_at_once() -> None:
    """It was marked, so it is not taken for a put's in flight."""
    clock = Clock()
    store = clock.store()
    saver = clock.saver(store)
    replace(saver, put(saver, at("t"), {"big": BIG}))
    saver.prune(["t"])

    saver.delete_thread("t")

    assert keys_of(store) == []


def test_a_prune_that_may_not_mark_says_so_and_nothing_is_torn() -> None:
    """A janitor without `PutObject` on values: history is pruned, the values stay."""
    store = MemoryStore()
    with S3Saver(Denied(store, Aim("CopyObject"))) as saver:
        latest = replace(saver, put(saver, at("t"), {"big": BIG}))

        with pytest.raises(AccessDeniedError):
            saver.prune(["t"])

        assert ids(saver, "t") == [id_of(latest)]


def test_values_stored_before_each_write_had_a_name_of_its_own_are_read_and_reused() -> None:
    """Their records hold no digest and no origin: the name is the digest."""
    clock = Clock()
    store = clock.store()
    saver = clock.saver(store)
    put(saver, at("t"), {"big": BIG})
    (head,) = keys_of(store, "/c.")
    (value,) = keys_of(store, "/values/")
    record = ormsgpack.unpackb(store._objects[head].body)
    name, tag, version, digest, _ = record["values"]["big"]
    body = ormsgpack.packb(record | {"values": {"big": [digest, tag, version]}})
    attributes = ObjectAttributes("application/octet-stream", None, {"digest": hashlib.sha256(body).hexdigest()})

    async def as_it_was(objects: ObjectStore) -> None:
        await objects.put(head.replace(name, digest), body, attributes, mode="overwrite")
        await objects.copy(value, value.replace(name, digest))
        await objects.delete([head, value])

    saver._opening.call(lambda threads: as_it_was(threads.objects))
    reader = clock.saver(store)
    found = reader.get_tuple(at("t"))
    assert values_of(found) == {"big": BIG}
    assert found is not None
    child = reuse(reader, found.config)
    reader.copy_thread("t", "u")

    assert values_of(saver.get_tuple(child)) == {"big": BIG, "n": 1}
    assert [values_of(item) for item in saver.list(at("u"))] == [{"big": BIG, "n": 1}, {"big": BIG}]


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), 3600, None])
def test_a_grace_period_is_a_timedelta_of_zero_or_more(grace: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="grace"):
        S3Saver(MemoryStore(), grace=grace)


def test_puts_without_a_grace_period_look_before_they_reuse() -> None:
    """`timedelta(0)` removes at once, so nothing seen before is relied on."""
    clock = Clock()
    store = clock.store()
    saver, other = clock.saver(store, grace=timedelta(0)), clock.saver(store, grace=timedelta(0))
    parent = put(saver, at("t"), {"big": BIG, "n": 0})
    replace(other, parent)
    other.prune(["t"])

    child = reuse(saver, parent, 3)

    assert values_of(other.get_tuple(child)) == {"big": BIG, "n": 3}


@pytest.mark.parametrize(
    "remove", [lambda saver: saver.delete_thread("t"), lambda saver: saver.delete_for_runs(["first"])]
)
def test_a_store_that_removes_nothing_ends_a_deletion_with_an_error(remove: Callable[[S3Saver], None]) -> None:
    """Story: DeleteObjects was answered with success and removed nothing, and the deletion listed again for ever."""
    clock = Clock()
    store = clock.store()

    class Deaf(StoreWrapper):
        async def delete(self, keys: Any) -> None:
            """Says that they are gone."""

    put(clock.saver(store), at("t"), {"n": 1}, run_id="first")

    with pytest.raises(StoreUnavailableError, match="does not remove"):
        remove(clock.saver(Deaf(store)))
