"""The key grammar of threads: what is built parses back, nothing aliases, and keys order newest first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_checkpoint._format.keys import MAX_KEY_BYTES
from s3_checkpoint._format.thread_keys import (
    MAX_CHECKPOINT_ID_BYTES,
    MAX_PREFIX_BYTES,
    NO_RUN,
    ThreadKeys,
    WritesName,
    channel_segment,
    check_prefix,
    head_name,
    is_hashed,
    newest_first,
    parse_head,
    parse_namespace,
    parse_newest_first,
    parse_run_entry,
    parse_segment,
    run_segment,
    value_name,
)
from s3_checkpoint.errors import InvalidArgumentError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16)


@given(IDS, IDS)
def test_a_greater_checkpoint_id_has_the_lesser_key(one: str, other: str) -> None:
    """Byte order, as S3 lists; and the directory of one never begins with that of another."""
    keys = ThreadKeys.of("p", "t").namespace("")
    directories = [keys.directory(one).encode(), keys.directory(other).encode()]

    assert (one.encode() < other.encode()) == (directories[0] > directories[1])
    assert parse_newest_first(newest_first(one)) == one
    if one != other:
        assert not directories[0].startswith(directories[1])
        assert (keys.after(one) < keys.directory(other) + "c.-") == (one.encode() > other.encode())


@given(TEXT, TEXT, IDS, TEXT)
def test_built_keys_parse_back(thread: str, namespace: str, checkpoint_id: str, task: str) -> None:
    keys = ThreadKeys.of("a/prefix", thread).namespace(namespace)
    writes = str(WritesName.first(task, "s"))

    assert is_hashed(keys.thread) or parse_segment(keys.thread) == thread
    assert is_hashed(keys.segment) or parse_segment(keys.segment) == namespace
    assert keys.parse(keys.directory(checkpoint_id) + writes) == (checkpoint_id, writes)
    assert WritesName.parse(writes) == WritesName.first(task, "s")
    assert parse_namespace("a/prefix", keys.directory(checkpoint_id) + writes) == keys
    assert parse_run_entry("a/prefix", "run", keys.run("run")) == keys
    assert parse_namespace("a/prefix", keys.run("run")) is None


@given(st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_two_threads_never_share_a_prefix(threads: list[str]) -> None:
    one, other = (ThreadKeys.of("", thread).root for thread in threads)

    assert not one.startswith(other)
    assert not other.startswith(one)


def test_no_key_is_longer_than_s3_allows() -> None:
    long = "é" * 2_000
    keys = ThreadKeys.of("p" * MAX_PREFIX_BYTES, long).namespace(long)
    checkpoint_id = "f" * MAX_CHECKPOINT_ID_BYTES
    directory = keys.directory(checkpoint_id)
    values = {value_name("c", n, "t", b""): channel_segment("c") for n in range(keys.most_values(checkpoint_id))}
    head = head_name(run_segment("r"), values, needs_ancestors=True)

    assert len(values) >= 2
    for key in (directory + head, directory + str(WritesName.first(long, "r")), keys.run(run_segment("r"))):
        assert len(key.encode()) <= MAX_KEY_BYTES
    # Segments that just escape hashing are the longest ones.
    longest = ThreadKeys.of("p" * MAX_PREFIX_BYTES, "t" * 128).namespace("n" * 256)
    values = {value_name("c", n, "t", b""): channel_segment("c") for n in range(longest.most_values(checkpoint_id))}
    assert len(values) >= 1
    assert len(longest.directory(checkpoint_id) + head_name(run_segment("r"), values, needs_ancestors=True)) <= 1024


def test_heads_tell_run_values_and_need() -> None:
    values = {value_name("a", 1, "t", b"x"): None, value_name("b", 1, "t", b"x"): channel_segment("b")}

    for run in (NO_RUN, run_segment("r")):
        for needs in (True, False):
            head = parse_head(head_name(run, values, needs_ancestors=needs))
            assert head is not None
            assert (head.run, head.values, head.needs_ancestors) == (run, tuple(values), needs)
            assert head.snapshots.keys() == {channel_segment("b")}


@pytest.mark.parametrize("name", ["", "c", "c.", "c.x", "c.-.", "c.-.abc", "w.a.r1", "w..r000000", "d.-/", "c.-\n"])
def test_other_names_are_none_of_ours(name: str) -> None:
    assert parse_head(name) is None
    assert WritesName.parse(name) is None


@pytest.mark.parametrize("segment", ["", "z", "0z", "0f", "0Fz", "ffz0", "00z/", "7fz", "3cz3cz"])
def test_other_directories_are_no_checkpoints(segment: str) -> None:
    """Not even those that decode to what is not UTF-8, or that we would have written otherwise."""
    assert parse_newest_first(segment) is None


@pytest.mark.parametrize("checkpoint_id", ["", "x" * 65, "é" * 33, "\ud800"])
def test_impossible_checkpoint_ids_are_refused(checkpoint_id: str) -> None:
    with pytest.raises(InvalidArgumentError, match="checkpoint_id"):
        newest_first(checkpoint_id)


def test_names_with_lone_surrogates_are_refused_by_their_own_name() -> None:
    with pytest.raises(InvalidArgumentError, match="thread_id"):
        ThreadKeys.of("", "\ud800")
    with pytest.raises(InvalidArgumentError, match="checkpoint_ns"):
        ThreadKeys.of("", "t").namespace("\ud800")


def test_prefixes_are_stripped_and_bounded() -> None:
    assert check_prefix("/a/b/") == "a/b"
    with pytest.raises(InvalidArgumentError, match="prefix"):
        check_prefix("x" * (MAX_PREFIX_BYTES + 1))


def test_the_name_of_a_value_covers_channel_version_tag_and_content() -> None:
    names = {
        value_name("a", 1, "t", b"x"),
        value_name("b", 1, "t", b"x"),
        value_name("a", 2, "t", b"x"),
        value_name("a", "1", "t", b"x"),
        value_name("a", 1, "u", b"x"),
        value_name("a", 1, "t", b"y"),
    }

    assert len(names) == 6
    assert value_name("a", 1, "t", b"x") in names
