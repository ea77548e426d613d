"""One loop over continuation tokens: it hands out what is there, and ends whatever a server says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from s3_checkpoint import MemoryStore, StoreError
from s3_checkpoint.object_store import (
    EMPTY_PAGES,
    PAGE_KEYS,
    ListedObject,
    ObjectAttributes,
    ObjectStore,
    Page,
    pages,
)
from s3_checkpoint.testing import StoreWrapper

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def page_of(*keys: str, token: str | None = None, prefixes: tuple[str, ...] = ()) -> Page:
    """A page with these keys."""
    return Page.of([ListedObject(key, 1, WHEN) for key in keys], prefixes, token)


class Answering(StoreWrapper):
    """A store whose n-th LIST is answered with `answer(n)`, whatever is asked."""

    def __init__(self, answer: Callable[[int], Page]) -> None:
        super().__init__(MemoryStore())
        self.answer = answer
        self.lists = 0

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        self.lists += 1
        return self.answer(self.lists)


async def keys_of(store: ObjectStore) -> list[str]:
    """All keys under `p/`, as `pages` gives them."""
    return [key async for page in pages(store, "p/") for key in page.keys]


async def test_pages_are_the_whole_listing_in_order(store: ObjectStore) -> None:
    """Each key once, from behind `start_after`, grouped where a delimiter is given."""
    for key in ("p/1", "p/2", "p/3/a", "p/3/b", "p/4", "q/1"):
        await store.put(key, b"", ObjectAttributes(), mode="overwrite")

    plain = [key async for page in pages(store, "p/", start_after="p/1", limit=2) for key in page.keys]
    steps = [list(page.keys) async for page in pages(store, "p/", first_limit=1, limit=2)]
    groups = [group async for page in pages(store, "p/", delimiter="/", limit=2) for group in page.prefixes]

    assert plain == ["p/2", "p/3/a", "p/3/b", "p/4"]
    assert groups == ["p/3/"]
    if steps[-1] == []:  # a page may be empty, as obstore's last one is
        steps.pop()
    assert steps == [["p/1"], ["p/2", "p/3/a"], ["p/3/b", "p/4"]]


@pytest.mark.parametrize("period", [1, 2, 3], ids=["the same for ever", "two in turn", "three in turn"])
async def test_a_token_that_comes_twice_is_an_error(period: int) -> None:
    """Story: a server that gave one token for ever kept a listing going for ever."""
    store = Answering(lambda n: page_of(f"p/{n}", token=f"t{n % period}"))

    with pytest.raises(StoreError, match="never ends"):
        await keys_of(store)

    assert store.lists == period + 1


async def test_empty_pages_without_end_are_an_error() -> None:
    """With a new token each time; a few empty pages are none: S3 may send them."""
    store = Answering(lambda n: page_of(token=f"t{n}"))
    with pytest.raises(StoreError, match="never ends"):
        await keys_of(store)
    assert store.lists == EMPTY_PAGES

    few = Answering(lambda n: page_of(token=f"t{n}") if n < EMPTY_PAGES else page_of("p/1"))
    assert await keys_of(few) == ["p/1"]


@pytest.mark.parametrize(
    "page",
    [page_of("p/1", "q/2"), page_of("p"), page_of(""), page_of("p/1", prefixes=("q/",))],
    ids=["beside it", "above it", "no name", "a common prefix"],
)
async def test_a_key_outside_the_prefix_is_an_error(page: Page) -> None:
    """Story: a server that ignored the prefix had `delete` remove the keys of others."""
    with pytest.raises(StoreError, match="outside this prefix"):
        await keys_of(Answering(lambda _: page))
