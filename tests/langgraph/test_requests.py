"""What each call costs without a cache: requests by verb, and round trips, whatever the length of the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import Counting, at, chain, checkpoint, put

BIG = "x" * 1_000_000


@pytest.fixture
def store() -> Counting:
    return Counting(MemoryStore())


@pytest.fixture
def saver(store: Counting) -> Iterator[S3Saver]:
    with S3Saver(store, cache_bytes=0) as saver:
        yield saver


def cost(store: Counting, call: Callable[[], Any]) -> tuple[dict[str, int], int]:
    store.reset()
    call()
    return dict(store.requests), store.rounds


def write_history(store: Counting, count: int) -> None:
    """`count` checkpoints, each with the writes of one task: as a run leaves them."""
    with S3Saver(store.store) as saver:
        for config in chain(saver, at("t"), count):
            saver.put_writes(config, [("n", 1)], "task")


@pytest.mark.parametrize("history", [10, 2_500, pytest.param(10_000, marks=pytest.mark.long)])
def test_the_newest_takes_two_round_trips_at_any_length_of_the_history(
    store: Counting, saver: S3Saver, history: int
) -> None:
    write_history(store, history)

    assert cost(store, lambda: saver.get_tuple(at("t"))) == ({"LIST": 1, "GET": 2}, 2)
    assert cost(store, lambda: list(saver.list(at("t"), limit=5))) == ({"LIST": 1, "GET": 10}, 2)


def test_the_newest_with_large_values_and_many_tasks_takes_two_round_trips(store: Counting, saver: S3Saver) -> None:
    config = put(saver, at("t"), {"a": BIG, "b": BIG + "b", "c": 1})
    for n in range(20):
        saver.put_writes(config, [("x", n), ("y", n)], f"task-{n}")

    assert cost(store, lambda: saver.get_tuple(at("t"))) == ({"LIST": 1, "GET": 23}, 2)
    assert cost(store, lambda: saver.get_tuple(config)) == ({"LIST": 1, "GET": 23}, 2)


def test_more_pending_writes_than_a_page_holds_are_all_found(store: Counting, saver: S3Saver) -> None:
    config = put(saver, at("t"))
    for n in range(250):
        saver.put_writes(config, [("x", n)], f"task-{n:03}")
    store.reset()

    found = saver.get_tuple(at("t"))

    assert found is not None
    assert [value for _, _, value in found.pending_writes or []] == list(range(250))
    assert store.requests == {"LIST": 2, "GET": 251}


def test_absent_checkpoints_cost_one_list(store: Counting, saver: S3Saver) -> None:
    assert cost(store, lambda: saver.get_tuple(at("t"))) == ({"LIST": 1}, 1)
    assert cost(store, lambda: saver.get_tuple(at("t", checkpoint_id="c"))) == ({"LIST": 1}, 1)
    assert cost(store, lambda: list(saver.list(at("t")))) == ({"LIST": 1}, 1)
    assert cost(store, lambda: saver.delete_thread("t")) == ({"LIST": 1}, 1)
    assert cost(store, lambda: saver.copy_thread("t", "u")) == ({"LIST": 1}, 1)
    assert cost(store, lambda: saver.prune(["t"])) == ({"LIST": 1}, 1)
    assert cost(store, lambda: saver.delete_for_runs(["r"])) == ({"LIST": 1}, 1)


def test_a_put_is_one_request_and_one_more_per_large_value_that_changed(store: Counting, saver: S3Saver) -> None:
    first, second = checkpoint({"n": 1, "text": "small"}), checkpoint({"n": 2, "a": BIG, "b": BIG})

    assert cost(store, lambda: saver.put(at("t"), first, {}, first["channel_versions"])) == ({"PUT": 1}, 1)
    assert cost(store, lambda: saver.put(at("t"), second, {}, second["channel_versions"])) == ({"PUT": 3}, 2)


def test_an_unchanged_large_value_is_not_written_again_at_every_superstep(store: Counting, saver: S3Saver) -> None:
    config = put(saver, at("t"), {"big": BIG, "n": 0})
    for n in range(2, 12):
        child = checkpoint({"big": BIG, "n": n}, n=n)
        store.reset()
        config = saver.put(config, child, {}, {"n": n})
        assert store.requests == {"PUT": 1}

    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"big": BIG, "n": 11}
    sizes = [len(store.store._objects[key.decode()].body) for key in store.store._keys]  # type: ignore[attr-defined]
    assert sum(sizes) < 1_020_000


def test_a_new_process_that_has_read_the_parent_does_not_write_its_large_values_again(store: Counting) -> None:
    with S3Saver(store) as one:
        config = put(one, at("t"), {"big": BIG})
    with S3Saver(store) as other:
        other.get_tuple(at("t"))
        child = checkpoint({"big": BIG, "n": 1})

        assert cost(store, lambda: other.put(config, child, {}, {"n": 1})) == ({"PUT": 1}, 1)


def test_writes_are_one_request_a_call_not_one_a_write(store: Counting, saver: S3Saver) -> None:
    config = put(saver, at("t"))
    batches: list[tuple[str, list[tuple[str, Any]], int]] = [
        ("task-1", [("a", 1), ("b", 2), ("c", 3)], 1),
        ("task-1", [(INTERRUPT, 1), (RESUME, 2)], 1),
        ("task-2", [("a", 1), (RESUME, 2)], 2),
    ]
    for task, writes, puts in batches:
        assert cost(store, lambda t=task, w=writes: saver.put_writes(config, w, t)) == ({"PUT": puts}, 1)  # type: ignore[misc]

    again = cost(store, lambda: saver.put_writes(config, [("a", 9)], "task-1"))
    more = cost(store, lambda: saver.put_writes(config, [(RESUME, 9)], "task-1"))

    assert again == ({"PUT": 1, "LIST": 1, "GET": 1}, 3)
    assert more == ({"PUT": 2, "LIST": 1, "GET": 1}, 4)


def test_a_run_costs_one_request_more_once_per_namespace(store: Counting, saver: S3Saver) -> None:
    def one(config: RunnableConfig) -> dict[str, int]:
        return cost(store, lambda: put(saver, config, run_id="run"))[0]

    assert [one(at("t")), one(at("t")), one(at("t", "inner")), one(at("t", "inner"))] == [
        {"PUT": 2},
        {"PUT": 1},
        {"PUT": 2},
        {"PUT": 1},
    ]


def test_listing_reads_a_chunk_together_and_only_as_far_as_iterated(store: Counting, saver: S3Saver) -> None:
    chain(saver, at("t"), 60)

    assert cost(store, lambda: list(saver.list(at("t"), limit=50))) == ({"LIST": 1, "GET": 50}, 2)
    assert cost(store, lambda: list(saver.list(at("t"), limit=0))) == ({}, 0)
    assert cost(store, lambda: next(iter(saver.list(at("t"))))) == ({"LIST": 1, "GET": 8}, 2)
    assert cost(store, lambda: list(saver.list(at("t")))) == ({"LIST": 1, "GET": 60}, 5)
    assert cost(store, lambda: list(saver.list(None))) == ({"LIST": 1, "GET": 60}, 5)


def test_a_filter_reads_what_belongs_to_matches_alone(store: Counting, saver: S3Saver) -> None:
    for config in chain(saver, at("t"), 8):
        saver.put_writes(config, [("x", 1)], "task")

    assert cost(store, lambda: list(saver.list(at("t"), filter={"step": 3}))) == ({"LIST": 1, "GET": 9}, 3)


def test_deleting_a_thread_takes_a_list_and_a_delete_per_thousand_objects(store: Counting, saver: S3Saver) -> None:
    write_history(store, 1_000)

    assert cost(store, lambda: saver.delete_thread("t"))[0] == {"LIST": 3, "DELETE": 2}
    assert store.store._keys == []  # type: ignore[attr-defined]


def test_pruning_reads_nothing_without_delta_channels(store: Counting, saver: S3Saver) -> None:
    write_history(store, 400)

    assert cost(store, lambda: saver.prune(["t"]))[0] == {"LIST": 1, "DELETE": 2}
    assert len(list(saver.list(at("t")))) == 1


def test_deleting_a_run_reads_nothing(store: Counting, saver: S3Saver) -> None:
    for n in range(10):
        put(saver, at("t"), run_id=f"run-{n % 2}")

    assert cost(store, lambda: saver.delete_for_runs(["run-1"]))[0] == {"LIST": 4, "DELETE": 2}


def test_making_opening_and_closing_a_saver_cost_nothing_and_setup_one_list(store: Counting) -> None:
    def open_and_close() -> None:
        with S3Saver(store):
            pass

    assert cost(store, open_and_close) == ({}, 0)
    with S3Saver(store) as saver:
        assert cost(store, saver.setup) == ({"LIST": 1}, 1)


def test_refused_calls_cost_nothing(store: Counting, saver: S3Saver) -> None:
    def refused() -> None:
        with pytest.raises(ValueError, match="checkpoint_id"):
            saver.put_writes(at("t"), [("a", 1)], "task")

    assert cost(store, refused) == ({}, 0)
