"""What can be wrong with what is stored, or with where: each has its clear error."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from pydantic import JsonValue

from s3_checkpoint import (
    ActiveSnapshot,
    ConfigurationError,
    LifecycleError,
    MemoryStore,
    S3Checkpointer,
    S3Settings,
    StateDecodingError,
    StepConflictError,
    connect,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore
from tests.states import RUN, Counter

KEYS = RunKeys("", RUN)


async def plant(
    store: ObjectStore, body: bytes, *, plain: bytes | None = None, encoding: str | None = None, **metadata: str
) -> None:
    """Puts an object where the state of step 7 is, described as ours unless `metadata` says otherwise."""
    digest = hashlib.sha256(body if plain is None else plain).hexdigest()
    described = {"format": "1", "schema_version": "1", "write_id": "w", "digest": digest} | metadata
    attributes = ObjectAttributes(
        content_encoding=encoding,
        metadata={name.replace("_", "-"): value for name, value in described.items() if value},
    )
    await store.put(KEYS.state(7), body, attributes, mode="overwrite")


CASES: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "not JSON": (b"{not json", {}, "does not fit the type at"),
    "empty": (b"", {}, "does not fit the type"),
    "not text": (b"\xff\xfe\x00", {}, "does not fit the type"),
    "another type": (b'{"m": 1}', {}, r"does not fit the type at \$\.n"),
    "an array": (b"[1]", {}, "does not fit the type"),
    "wrong digest": (b'{"n": 1}', {"digest": "0" * 64}, "does not match its digest"),
    "no digest": (b'{"n": 1}', {"digest": ""}, "does not match its digest"),
    "no metadata": (b'{"n": 1}', {"format": ""}, "carries no metadata of this library"),
    "another layout": (b'{"n": 1}', {"format": "2"}, "layout format '2'"),
    "unknown encoding": (b'{"n": 1}', {"encoding": "br"}, "neither gzip nor zstd"),
    "gzip that is none": (b'{"n": 1}', {"encoding": "gzip"}, "gzip data is damaged"),
    "gzip cut short": (gzip.compress(b'{"n": 1}')[:-9], {"encoding": "gzip", "plain": b'{"n": 1}'}, "gzip data"),
    "zstd that is none": (b'{"n": 1}', {"encoding": "zstd"}, "zstd data is damaged"),
    "a gzip bomb": (gzip.compress(b" " * 50_000_000), {"encoding": "gzip"}, "decompresses to more than"),
    "a zstd bomb": (zstandard.compress(b" " * 50_000_000), {"encoding": "zstd"}, "decompresses to more than"),
    "oversized": (b" " * 2_000_000, {}, "2000000 bytes, more than"),
    "newer schema": (b'{"n": 1}', {"schema_version": "9"}, "newer than ours"),
    "no schema version": (b'{"n": 1}', {"schema_version": ""}, "schema-version"),
    "schema version zero": (b'{"n": 1}', {"schema_version": "0"}, "schema-version"),
    "schema version of words": (b'{"n": 1}', {"schema_version": "two"}, "schema-version"),
}


@pytest.mark.parametrize("name", CASES)
async def test_untrusted_objects_are_errors(store: ObjectStore, name: str) -> None:
    """With bucket, key and reason; never None, never a guess."""
    body, how, reason = CASES[name]
    checkpointer = S3Checkpointer(Counter, store, max_state_bytes=1_000_000)
    await plant(store, body, **how)

    for read in (checkpointer.load(RUN, 7), checkpointer.load(RUN), checkpointer.resume(RUN)):
        with pytest.raises(StateDecodingError, match=reason) as caught:
            await read
        assert (caught.value.bucket, caught.value.key) == (store.bucket, KEYS.state(7))


LARGE_TASKS = [ActiveSnapshot(node_name="a", payload="x" * 2048)]
"""Too large for metadata: they are in an object of their own."""


async def test_a_named_snapshot_that_is_gone_is_an_error(store: ObjectStore) -> None:
    """Resuming without tasks that were committed would run the graph from its start."""
    checkpointer = S3Checkpointer(Counter, store, new_id=lambda: "w1")
    await checkpointer.commit(RUN, 7, Counter(n=1), LARGE_TASKS)
    await store.delete([KEYS.committed_active(7, "w1")])

    for read in (checkpointer.resume(RUN), checkpointer.load_active(RUN, 7)):
        with pytest.raises(StateDecodingError, match="is gone") as caught:
            await read
        assert caught.value.key == KEYS.committed_active(7, "w1")
    assert await checkpointer.load(RUN) == Counter(n=1)


async def test_a_snapshot_that_was_exchanged_is_an_error(store: ObjectStore) -> None:
    """The state says which digest its tasks have."""
    ids = iter(["w1", "w2"])
    checkpointer = S3Checkpointer(Counter, store, new_id=lambda: next(ids))
    await checkpointer.commit(RUN, 7, Counter(n=1), LARGE_TASKS)
    await checkpointer.commit(RUN, 8, Counter(n=2), [*LARGE_TASKS, *LARGE_TASKS])
    await store.copy(KEYS.committed_active(7, "w1"), KEYS.committed_active(8, "w2"))

    with pytest.raises(StateDecodingError, match="not the snapshot that its step was committed with"):
        await checkpointer.resume(RUN)


@pytest.mark.parametrize(
    ("inline", "problem"),
    [
        ("not base64!", "not base64"),
        ("W10", "not base64"),
        ("W10=", "does not match its active-digest"),
        ("é", "not base64"),
    ],
)
async def test_inline_tasks_that_cannot_be_trusted_are_an_error(inline: str, problem: str) -> None:
    """The state says which digest its tasks have, wherever they are."""
    store = MemoryStore()
    checkpointer = S3Checkpointer(Counter, store)
    await checkpointer.commit(RUN, 7, Counter(n=1), [ActiveSnapshot(node_name="a")])
    stored = await store.get(KEYS.state(7), max_bytes=1000)
    assert stored is not None
    metadata = {**stored.head.attributes.metadata, "active-inline": inline}
    attributes = replace(stored.head.attributes, metadata=metadata)
    await store.put(KEYS.state(7), stored.body, attributes, mode="overwrite")

    for read in (checkpointer.resume(RUN), checkpointer.load_active(RUN, 7)):
        with pytest.raises(StateDecodingError, match=problem):
            await read


async def test_a_step_of_an_older_version_that_names_its_snapshot_is_read(store: ObjectStore) -> None:
    """Before tasks were carried inline, every commit named a snapshot object."""
    older = S3Checkpointer(Counter, store, inline_tasks="never")
    await older.commit(RUN, 7, Counter(n=1), [ActiveSnapshot(node_name="a")])

    resumed = await S3Checkpointer(Counter, store).resume(RUN)

    assert resumed is not None
    assert list(resumed.active) == [ActiveSnapshot(node_name="a")]


@pytest.mark.parametrize("write_id", ["../../secret", "a/b", "a.b", "x" * 65, "é"])
async def test_a_write_id_that_is_none_never_becomes_a_key(write_id: str) -> None:
    """Metadata comes from outside."""
    store = MemoryStore()
    await plant(store, b'{"n": 1}', active=write_id)

    with pytest.raises(StateDecodingError, match="is none"):
        await S3Checkpointer(Counter, store).resume(RUN)


async def test_foreign_keys_among_the_steps_are_skipped(store: ObjectStore) -> None:
    """Whatever sorts before, between and after."""
    checkpointer = S3Checkpointer(Counter, store)
    await checkpointer.save(RUN, 3, Counter(n=3))
    for name in ("!", "0", "00000000000000000003.json.bak", "99999999999999999999.json", "latest", "zzz/x"):
        await store.put(KEYS.steps + name, b"foreign", ObjectAttributes(), mode="overwrite")

    assert await checkpointer.list(RUN) == [3]
    assert await checkpointer.load(RUN) == Counter(n=3)


async def test_an_aws_chunked_upload_is_read(store: ObjectStore) -> None:
    """Some stores leave the upload's own encoding in the header."""
    await plant(store, gzip.compress(b'{"n": 1}'), plain=b'{"n": 1}', encoding="aws-chunked,gzip")

    assert await S3Checkpointer(Counter, store).load(RUN, 7) == Counter(n=1)


async def test_gzip_members_are_read_one_after_another() -> None:
    """As the format allows."""
    store = MemoryStore()
    await plant(store, gzip.compress(b'{"n"') + gzip.compress(b": 1}"), plain=b'{"n": 1}', encoding="gzip")

    assert await S3Checkpointer(Counter, store).load(RUN, 7) == Counter(n=1)


async def test_reading_goes_by_the_header_not_by_the_settings(store: ObjectStore) -> None:
    """One run may hold plain, gzip and zstd."""
    for step, compression in enumerate([None, "gzip", "zstd"]):
        await S3Checkpointer(dict[str, JsonValue], store, compression=compression).save(RUN, step, {"x": "y" * 1000})
    reader = S3Checkpointer(dict[str, JsonValue], store)

    assert [await reader.load(RUN, step) for step in range(3)] == [{"x": "y" * 1000}] * 3
    heads = [await store.head(KEYS.state(step)) for step in range(3)]
    assert [head.attributes.content_encoding if head else "" for head in heads] == [None, "gzip", "zstd"]


def test_an_unknown_compression_is_refused_at_once() -> None:
    """When it is made, not after a superstep's work."""
    with pytest.raises(ConfigurationError, match="'gzip', 'zstd' or None"):
        S3Checkpointer(Counter, MemoryStore(), compression="lzma")


async def test_a_body_is_plain_json_for_everybody_else(store: ObjectStore) -> None:
    """`aws s3 cp … - | jq` reads it, and `Content-Encoding` tells what to undo first."""
    await S3Checkpointer(Counter, store, compression="gzip").save(RUN, 7, Counter(n=1))

    stored = await store.get(KEYS.state(7), max_bytes=1000)

    assert stored is not None
    assert stored.head.attributes.content_type == "application/json"
    assert zlib.decompress(stored.body, 31) == b'{"n":1}'


async def test_a_bucket_that_is_not_there_says_so(settings: S3Settings) -> None:
    """Reading and writing alike; nothing reads as "no such run"."""
    missing = settings.model_copy(update={"bucket": "no-such-bucket"})

    async with connect(Counter, missing) as checkpointer:
        for call in (
            lambda: checkpointer.save(RUN, 0, Counter(n=0)),
            lambda: checkpointer.load(RUN),
            lambda: checkpointer.load(RUN, 0),
            lambda: checkpointer.list(RUN),
            lambda: checkpointer.load_active(RUN, 0),
            lambda: checkpointer.commit(RUN, 0, Counter(n=0), []),
            lambda: checkpointer.resume(RUN),
        ):
            with pytest.raises(ConfigurationError, match="the bucket does not exist") as caught:
                await call()
            assert caught.value.bucket == "no-such-bucket"


async def test_a_store_without_conditions_is_not_committed_to(store: ObjectStore) -> None:
    """Knowingly set so; the trait's calls still work."""
    checkpointer = S3Checkpointer(Counter, store, conditional_writes=False)

    with pytest.raises(ConfigurationError, match="If-None-Match"):
        await checkpointer.commit(RUN, 0, Counter(n=0), [])
    await checkpointer.save(RUN, 0, Counter(n=0))
    assert await checkpointer.load(RUN) == Counter(n=0)


async def test_use_before_opening_and_after_closing_is_a_clear_error(
    settings: S3Settings, new_settings: Callable[..., S3Settings]
) -> None:
    """It says what to write instead."""
    connection = connect(Counter, settings)
    with pytest.raises(LifecycleError, match="async with"):
        connection.save  # type: ignore[attr-defined]  # noqa: B018

    async with connection as checkpointer:
        await checkpointer.save(RUN, 0, Counter(n=0))
        with pytest.raises(LifecycleError, match="open already"):
            await connection.__aenter__()
    with pytest.raises(LifecycleError, match="closed"):
        await checkpointer.load(RUN)

    async with connection as again:
        assert await again.load(RUN) == Counter(n=0)


async def test_the_winner_of_a_conflict_is_named(store: ObjectStore) -> None:
    """By the write id in the object's metadata."""
    ids = iter(["first", "second"])
    checkpointer = S3Checkpointer(Counter, store, new_id=lambda: next(ids))
    await checkpointer.commit(RUN, 7, Counter(n=1), [])

    with pytest.raises(StepConflictError) as caught:
        await checkpointer.commit(RUN, 7, Counter(n=2), [])

    head = await store.head(KEYS.state(7))
    assert head is not None
    assert caught.value.winner == "first" == head.attributes.metadata["write-id"]
    assert (caught.value.run_id, caught.value.step) == (RUN, 7)
