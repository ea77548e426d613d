"""`put` and `get_tuple`: what comes back, which one is the newest, and how threads and namespaces stay apart."""

from __future__ import annotations

import copy
from typing import Any
from uuid import UUID

import pytest
from langchain_core.runnables import RunnableConfig

from s3_checkpoint import InvalidArgumentError, MemoryStore
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import at, chain, checkpoint, id_of, put


def test_the_parent_comes_from_the_config_never_from_the_metadata(saver: S3Saver) -> None:
    """`parents` in the metadata maps namespaces to the checkpoints of enclosing graphs."""
    root = put(saver, at("t"))

    child = put(saver, root, parents={"": "another", "inner": "third"})

    found = saver.get_tuple(child)
    assert found is not None
    assert found.parent_config == root
    assert found.metadata["parents"] == {"": "another", "inner": "third"}


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_checkpoint_id_means_the_newest_and_no_parent(saver: S3Saver, nothing: str | None) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": nothing}}
    first = put(saver, config)
    second = put(saver, first)

    newest, root = saver.get_tuple(config), saver.get_tuple(first)

    assert newest is not None
    assert newest.config == second
    assert root is not None
    assert root.parent_config is None


def test_the_newest_is_the_one_with_the_greatest_id_not_the_last_one_put(saver: S3Saver) -> None:
    for checkpoint_id in ("b", "c", "a", "1efb", "Z", "é", "bb", "b0"):
        saver.put(at("t"), checkpoint({"n": checkpoint_id}, checkpoint_id=checkpoint_id), {}, {"n": 1})

    found = saver.get_tuple(at("t"))
    listed = [id_of(item.config) for item in saver.list(at("t"))]

    assert found is not None
    assert id_of(found.config) == "é"
    assert listed == ["é", "c", "bb", "b0", "b", "a", "Z", "1efb"]


def test_the_same_id_put_again_replaces(saver: S3Saver) -> None:
    first = checkpoint({"n": "small", "big": "x" * 100_000})
    saver.put(at("t"), first, {"step": 1}, first["channel_versions"])

    again = checkpoint({"n": "other", "big": "y" * 100_000}, checkpoint_id=first["id"], n=2, big=2)
    saver.put(at("t"), again, {"step": 2}, again["channel_versions"])

    found = saver.get_tuple(at("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": "other", "big": "y" * 100_000}
    assert found.metadata["step"] == 2
    assert len(list(saver.list(at("t")))) == 1


def test_thread_ids_are_coerced_to_text_everywhere(saver: S3Saver) -> None:
    number: RunnableConfig = {"configurable": {"thread_id": 7, "checkpoint_ns": ""}}
    uuid = UUID("1efb0000-0000-6000-8000-000000000001")
    stored = put(saver, number)
    put(saver, {"configurable": {"thread_id": uuid, "checkpoint_ns": ""}})

    assert stored["configurable"]["thread_id"] == "7"
    assert saver.get_tuple(at("7")) is not None
    assert saver.get_tuple(at(str(uuid))) is not None
    saver.delete_thread(7)  # type: ignore[arg-type]
    assert saver.get_tuple(at("7")) is None


ODD_NAMES = ["", "a", "a/b", "ab", "..", ".", "a|b:c", "node:1ef|child:2|1", "é ü", "%2F", "!", "~", "x" * 900]


@pytest.mark.parametrize("what", ["thread", "namespace"])
def test_odd_names_stay_apart_and_come_back(saver: S3Saver, what: str) -> None:
    """Slashes, dots, blanks, `|` and `:`, non-ASCII, and names longer than a key may be."""
    for name in ODD_NAMES:
        put(saver, at(name, "") if what == "thread" else at("t", name), {"name": name})

    for name in ODD_NAMES:
        found = saver.get_tuple(at(name, "") if what == "thread" else at("t", name))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"name": name}
    field = "thread_id" if what == "thread" else "checkpoint_ns"
    listed = list(saver.list(None))
    assert {item.config["configurable"][field] for item in listed} == set(ODD_NAMES)
    assert all(item.config["configurable"][field] == item.checkpoint["channel_values"]["name"] for item in listed)


def test_values_come_back_as_they_were_and_are_not_shared(saver: S3Saver) -> None:
    given = checkpoint({"list": [1, {"k": {2, 3}}], "bytes": b"\0\xff", "none": None, "text": "é\0"})
    before = copy.deepcopy(given)
    config = saver.put(at("t"), given, {"step": 1}, given["channel_versions"])

    first, second = saver.get_tuple(config), saver.get_tuple(config)

    assert given == before
    assert first is not None
    assert second is not None
    assert first.checkpoint == before
    assert first.checkpoint["channel_values"]["list"] is not second.checkpoint["channel_values"]["list"]


def test_unknown_fields_of_a_checkpoint_are_kept(saver: S3Saver) -> None:
    given: Any = {**checkpoint(), "a_field_of_tomorrow": [1, 2]}

    config = saver.put(at("t"), given, {}, {})

    found: Any = saver.get_tuple(config)
    assert found.checkpoint["a_field_of_tomorrow"] == [1, 2]


def test_a_channel_without_a_value_or_without_a_version_is_not_returned(saver: S3Saver) -> None:
    given = checkpoint({"kept": 1, "unversioned": 2}, emptied=3)
    del given["channel_versions"]["unversioned"]

    config = saver.put(at("t"), given, {}, {"kept": 1, "emptied": 3})

    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"kept": 1}
    assert found.checkpoint["channel_versions"] == {"kept": 1, "emptied": 3}


def test_metadata_takes_in_the_plain_values_of_the_config(saver: S3Saver) -> None:
    config = at("t")
    config["configurable"] |= {"user": "u\0", "count": 3, "__secret": "no", "object": object()}
    config["metadata"] = {"run_id": "r", "langgraph_step": 9}

    stored = saver.put(config, checkpoint(), {"source": "loop", "step": 1}, {})

    found = saver.get_tuple(stored)
    assert found is not None
    assert found.metadata == {"source": "loop", "step": 1, "run_id": "r", "user": "u", "count": 3}


def test_forks_that_count_versions_alike_keep_their_own_large_values() -> None:
    """Two children of one checkpoint, both with version 2 of a channel, as integer versions give it."""
    with S3Saver(MemoryStore(), inline_bytes=0) as saver:
        parent = saver.put(at("t"), checkpoint({"x": "parent"}), {}, {"x": 1})
        forks = [saver.put(parent, checkpoint({"x": name}, x=2), {}, {"x": 2}) for name in ("left", "right")]

        found = [saver.get_tuple(config) for config in (parent, *forks)]

        assert [item.checkpoint["channel_values"]["x"] for item in found if item] == ["parent", "left", "right"]


@pytest.mark.parametrize("current", [None, 1, 2.0, "3", f"{4:032}.{0.5:016}"])
def test_versions_are_text_that_sorts_and_tells_forks_apart(saver: S3Saver, current: Any) -> None:
    """Threads that began with another saver continue: it counted with int, float or text."""
    following = [saver.get_next_version(current, None) for _ in range(10)]
    later = saver.get_next_version(following[0], None)

    assert len(set(following)) == 10
    assert all(later > version for version in following)
    assert saver.get_next_version(9, None) < saver.get_next_version(10, None)
    assert all(int(version.split(".")[0]) == int(str(current or 0).split(".")[0]) + 1 for version in following)


def test_a_config_without_a_thread_is_refused_before_any_request(saver: S3Saver) -> None:
    with pytest.raises(InvalidArgumentError, match="thread_id"):
        saver.get_tuple({"configurable": {}})


@pytest.mark.parametrize("checkpoint_id", ["x" * 65, "\ud800"])
def test_ids_that_cannot_be_keys_are_refused(saver: S3Saver, checkpoint_id: str) -> None:
    with pytest.raises(InvalidArgumentError, match="checkpoint_id"):
        saver.put(at("t"), checkpoint(checkpoint_id=checkpoint_id), {}, {})


def test_a_store_that_lists_in_no_order_gives_the_same_answers() -> None:
    """S3 Express directory buckets."""
    with S3Saver(MemoryStore(ordered=False)) as saver:
        configs = chain(saver, at("t"), 12)
        saver.put_writes(configs[-1], [("a", 1)], "task")

        newest = saver.get_tuple(at("t"))
        assert newest is not None
        assert newest.config == configs[-1]
        assert newest.pending_writes == [("task", "a", 1)]
        assert [item.config for item in saver.list(at("t"), before=configs[6], limit=3)] == configs[5:2:-1]
