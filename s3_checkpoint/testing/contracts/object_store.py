"""What an object store must do. Each test makes a handful of requests, under keys that begin with a letter."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from s3_checkpoint.object_store import Match, ObjectAttributes, ObjectStore, ObjectTooLargeError, Refused, Written

_PLAIN = ObjectAttributes()
_RICH = ObjectAttributes("application/json", "gzip", {"format": "1", "write-id": "abc", "digest": "0" * 64})


async def _keys(store: ObjectStore, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[str]:
    page = await store.list(prefix, start_after=start_after, limit=limit)
    return [entry.key for entry in page.objects]


class ObjectStoreContract:
    """The six verbs of `ObjectStore`. A subclass has a fixture `store`: an empty store for each test."""

    pytestmark: pytest.MarkDecorator = pytest.mark.asyncio

    def tells_the_time(self, store: ObjectStore) -> bool:
        """Whether heads tell `date`, the store's own clock: leases need it."""
        return True

    def takes_control_characters(self, store: ObjectStore) -> bool:
        """Whether keys may hold what XML cannot say."""
        return True

    async def test_what_was_put_is_got(self, store: ObjectStore) -> None:
        """Body, content headers and metadata come back as they were given."""
        written = await store.put("a/b.json", b'{"n": 1}', _RICH, mode="overwrite")

        stored = await store.get("a/b.json", max_bytes=100)

        assert isinstance(written, Written)
        assert stored is not None
        assert stored.body == b'{"n": 1}'
        assert stored.head.attributes == _RICH
        assert stored.head.etag == written.etag
        assert stored.head.size == 8

    async def test_a_head_tells_the_same_as_a_get(self, store: ObjectStore) -> None:
        """Only the body is missing."""
        await store.put("a", b"12345", _RICH, mode="overwrite")

        stored = await store.get("a", max_bytes=5)

        assert stored is not None
        assert await store.head("a") == stored.head

    async def test_an_answer_tells_the_time_of_the_store(self, store: ObjectStore) -> None:
        """By one clock with `last_modified`: the age of an object does not depend on this machine's clock."""
        if not self.tells_the_time(store):
            pytest.skip("this store does not tell the time of its answers")
        await store.put("a", b"12345", _RICH, mode="overwrite")

        stored = await store.get("a", max_bytes=5)
        head = await store.head("a")

        for told in (stored.head if stored else None, head):
            assert told is not None
            assert told.date is not None
            assert timedelta(seconds=-1) <= told.date - told.last_modified < timedelta(minutes=5)

    async def test_what_is_not_there_is_none(self, store: ObjectStore) -> None:
        """Absence is an answer, not an error."""
        assert await store.get("missing", max_bytes=10) is None
        assert await store.head("missing") is None

    async def test_overwrite_replaces_body_and_metadata(self, store: ObjectStore) -> None:
        """Nothing of the old object stays."""
        await store.put("a", b"old", _RICH, mode="overwrite")
        await store.put("a", b"new", _PLAIN, mode="overwrite")

        stored = await store.get("a", max_bytes=10)

        assert stored is not None
        assert (stored.body, stored.head.attributes) == (b"new", _PLAIN)

    async def test_create_is_refused_where_something_is(self, store: ObjectStore) -> None:
        """And what is there stays."""
        first = await store.put("a", b"first", _PLAIN, mode="create")
        second = await store.put("a", b"second", _PLAIN, mode="create")

        stored = await store.get("a", max_bytes=10)

        assert isinstance(first, Written)
        assert isinstance(second, Refused)
        assert stored is not None
        assert stored.body == b"first"

    async def test_of_many_creates_at_once_one_wins(self, store: ObjectStore) -> None:
        """The winner's body is the one that is there."""
        outcomes = await asyncio.gather(*(store.put("race", str(n).encode(), _PLAIN, mode="create") for n in range(16)))

        winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Written)]
        stored = await store.get("race", max_bytes=10)
        assert len(winners) == 1
        assert stored is not None
        assert stored.body == str(winners[0]).encode()

    async def test_match_writes_only_over_its_etag(self, store: ObjectStore) -> None:
        """A stale ETag is refused, and so is an object that is gone."""
        first = await store.put("a", b"1", _PLAIN, mode="create")
        assert isinstance(first, Written)

        second = await store.put("a", b"2", _PLAIN, mode=Match(first.etag))
        stale = await store.put("a", b"3", _PLAIN, mode=Match(first.etag))
        gone = await store.put("b", b"4", _PLAIN, mode=Match(first.etag))

        assert isinstance(second, Written)
        assert isinstance(stale, Refused)
        assert isinstance(gone, Refused)

    async def test_an_object_over_the_bound_is_not_read(self, store: ObjectStore) -> None:
        """The error says how large it is and where."""
        await store.put("big", b"x" * 101, _PLAIN, mode="overwrite")

        with pytest.raises(ObjectTooLargeError) as caught:
            await store.get("big", max_bytes=100)

        assert caught.value.key.endswith("big")
        assert (caught.value.size, caught.value.max_bytes) == (101, 100)
        assert "101 bytes" in str(caught.value)

    async def test_listing_is_in_byte_order_and_strongly_consistent(self, store: ObjectStore) -> None:
        """A key is listed as soon as its put has returned."""
        keys = ["p/10", "p/2", "p/a", "p/B", "p/é", "p/~", "q/1", "p"]
        for key in keys:
            await store.put(key, b"", _PLAIN, mode="overwrite")

        assert await _keys(store, "p/") == sorted((k for k in keys if k.startswith("p/")), key=str.encode)

    async def test_listing_tells_the_etag_that_put_and_head_tell(self, store: ObjectStore) -> None:
        """Without quotes, whatever the other two have."""
        written = [await store.put(f"e/{n}", f"body {n}".encode(), _PLAIN, mode="overwrite") for n in range(3)]

        page = await store.list("e/")
        listed = [entry.etag for entry in page.objects]

        assert listed == [one.etag.strip('"') for one in written if isinstance(one, Written)]
        assert len(set(listed)) == 3
        assert all(listed)

    async def test_listing_starts_after_a_key_that_need_not_exist(self, store: ObjectStore) -> None:
        """Exclusive."""
        for n in range(5):
            await store.put(f"p/{n}", b"", _PLAIN, mode="overwrite")

        assert await _keys(store, "p/", start_after="p/1") == ["p/2", "p/3", "p/4"]
        assert await _keys(store, "p/", start_after="p/15") == ["p/2", "p/3", "p/4"]
        assert await _keys(store, "p/", start_after="p/9") == []

    async def test_pages_follow_each_other_without_gap_or_repeat(self, store: ObjectStore) -> None:
        """By token, at any page size; the last page has none."""
        for n in range(7):
            await store.put(f"p/{n}", b"x" * n, _PLAIN, mode="overwrite")
        found, token = [], None
        for _ in range(10):
            page = await store.list("p/", token=token, limit=3)
            found += [(entry.key, entry.size) for entry in page.objects]
            token = page.next_token
            if token is None:
                break

        assert found == [(f"p/{n}", n) for n in range(7)]

    async def test_a_delimiter_groups_what_lies_below(self, store: ObjectStore) -> None:
        """Each group once, across pages too."""
        for key in ("r/a/1", "r/a/2", "r/b/1", "r/c", "r/d/1"):
            await store.put(key, b"", _PLAIN, mode="overwrite")

        page = await store.list("r/", delimiter="/")
        first = await store.list("r/", delimiter="/", limit=2)
        rest = await store.list("r/", delimiter="/", limit=2, token=first.next_token)

        assert list(page.prefixes) == ["r/a/", "r/b/", "r/d/"]
        assert [entry.key for entry in page.objects] == ["r/c"]
        assert list(first.prefixes) + list(rest.prefixes) == ["r/a/", "r/b/", "r/d/"]

    async def test_delete_removes_and_forgives(self, store: ObjectStore) -> None:
        """More than one batch; keys that are not there are no error."""
        for n in range(3):
            await store.put(f"p/{n}", b"", _PLAIN, mode="overwrite")

        await store.delete(["p/0", "p/2", *(f"missing/{n}" for n in range(1000))])

        assert await _keys(store, "p/") == ["p/1"]

    @pytest.mark.parametrize("name", ["a\x01b", "a\x0bb", "a\tb", "a\x7fb", "<&>]]>", "ü b", "%zz"])
    async def test_a_key_that_xml_cannot_say_is_deleted_beside_others(self, store: ObjectStore, name: str) -> None:
        """Story: one key with a control character in a batch, and nothing of the batch could be deleted."""
        keys = [f"p/{name}", "p/0", "p/1"]
        if not name.isprintable() and not self.takes_control_characters(store):
            pytest.skip("this store takes no such keys")
        for key in keys:
            await store.put(key, b"", _PLAIN, mode="overwrite")

        await store.delete(keys)

        assert await _keys(store, "p/") == []

    async def test_copy_takes_everything_along(self, store: ObjectStore) -> None:
        """Or replaces what describes it; a missing source is told."""
        await store.put("a", b"body", _RICH, mode="overwrite")
        other = ObjectAttributes("application/json", None, {"origin": "a"})

        assert await store.copy("a", "b")
        assert await store.copy("a", "c", attributes=other)
        assert not await store.copy("missing", "d")

        same, changed = await store.get("b", max_bytes=10), await store.get("c", max_bytes=10)
        assert same is not None
        assert changed is not None
        assert (same.body, same.head.attributes) == (b"body", _RICH)
        assert (changed.body, changed.head.attributes) == (b"body", other)
