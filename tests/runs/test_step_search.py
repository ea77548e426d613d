"""Finding steps: what is found is what is there, however the steps are spread."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from s3_checkpoint import StoreError
from s3_checkpoint._format.keys import MAX_STEP, RunKeys, parse_step_name
from s3_checkpoint._runs.step_listing import _next_step
from s3_checkpoint._runs.step_search import StepIndex
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, Page
from tests.runs.listing_stores import CountedStore

RUN = RunKeys("p", UUID(int=7))
OTHER = RunKeys("p", UUID(int=8))

scattered = st.sets(st.integers(0, MAX_STEP), max_size=60)
stretches = st.builds(
    lambda first, count, gap: set(range(first, min(first + count * gap, MAX_STEP + 1), gap)),
    st.integers(0, 2**40) | st.integers(0, MAX_STEP),
    st.integers(0, 1500),
    st.integers(1, 3) | st.integers(1, 2**52),
)
runs = st.builds(lambda *parts: set().union(*parts), scattered, stretches, stretches)
digits = st.text("0123456789", max_size=21)
other_names = st.sets(st.builds(lambda a, b: a + b, digits, st.text(".-:ajz!~é", min_size=1, max_size=4)), max_size=40)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    steps=runs,
    others=other_names,
    page_keys=st.integers(1, 9) | st.integers(1, 1000),
    hint=st.none() | st.integers(0, MAX_STEP),
    ordered=st.sampled_from([True, True, True, False]),
)
@example(steps=set(range(2100)), others=set(), page_keys=1, hint=None, ordered=True)
@example(steps=set(range(5000)), others=set(), page_keys=1000, hint=0, ordered=True)
@example(steps=set(range(0, 2100 * 2**52, 2**52)), others=set(), page_keys=7, hint=MAX_STEP, ordered=True)
@example(steps={2**n for n in range(64)} | {MAX_STEP}, others=set(), page_keys=1, hint=None, ordered=True)
@example(steps=set(range(4998)) | {2**63, MAX_STEP}, others={"1.json"}, page_keys=100, hint=None, ordered=True)
async def test_latest_and_list_agree_with_a_sorted_set(
    steps: set[int], others: set[str], page_keys: int, hint: int | None, ordered: bool
) -> None:
    """Sparse or dense, with other keys between, at any page size, with any hint."""
    store = CountedStore(page_keys=page_keys, ordered=ordered)
    await store.fill(RUN, steps, {name for name in others if parse_step_name(name) is None})
    index = StepIndex(store)
    if hint is not None:
        index.seen(RUN, hint)

    assert await index.latest(RUN) == max(steps, default=None)
    assert await index.steps(RUN) == sorted(steps)
    assert [info.step for info in await index.infos(RUN)] == sorted(steps)
    assert await index.latest(RUN) == max(steps, default=None)


@given(name=digits | st.builds(lambda a, b: a + b, digits, st.text(max_size=3)), step=st.integers(0, MAX_STEP))
@example(name="00000000000000000007.json", step=7)
@example(name="00000000000000000007.json", step=8)
@example(name="1.json", step=10**19)
def test_the_next_step_behind_a_key_is_the_least_one_greater(name: str, step: int) -> None:
    """By the byte order of keys, as the store has it."""
    after = f"{step:020d}.json".encode() > name.encode(errors="surrogatepass")

    assert after == (step >= _next_step(name))


@pytest.mark.parametrize("count", [999, 1000, 1001, 4321, 9000])
async def test_a_block_of_other_keys_hides_no_step(count: int) -> None:
    """Other keys fill whole pages before, among and behind the steps, the last number of all included."""
    store = CountedStore()
    names = [f"{step:020d}.tmp-{n:05d}" for step in (0, 1499) for n in range(count)]
    await store.fill(RUN, range(3000), [f"1.{n:05d}" for n in range(count)] + names)

    assert await StepIndex(store).latest(RUN) == 2999
    assert await StepIndex(store).steps(RUN) == list(range(3000))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    "name", ["copy/00000000000000000007.json", "00000000000000000001.json\n/00000000000000000002.json"]
)
async def test_a_key_that_ends_like_a_step_below_the_steps_is_none(ordered: bool, name: str) -> None:
    """Nor one with a line break in it that would make two of it."""
    store = CountedStore(ordered=ordered)
    await store.fill(RUN, [3, 4], [name])

    assert await StepIndex(store).steps(RUN) == [3, 4]
    assert await StepIndex(store).latest(RUN) == 4


@pytest.mark.parametrize("ordered", [True, False])
async def test_infos_tell_size_and_time(ordered: bool) -> None:
    """For every step, in order, for long runs too."""
    store = CountedStore(ordered=ordered, page_keys=100)
    await store.fill(RUN, range(0, 7000, 7))

    infos = await StepIndex(store).infos(RUN)

    page = await store.store.list(RUN.steps)
    lines = sorted(page.objects)
    assert [(info.step, info.size, info.last_modified) for info in infos] == [
        (RUN.parse_state(line.key), line.size, line.last_modified) for line in lines
    ]


async def test_steps_of_other_runs_are_not_found() -> None:
    """Neighbouring runs and a subgraph's steps are not."""
    store = CountedStore()
    await store.fill(OTHER, [5])
    await store.fill(RunKeys("p", RUN.run_id, "sub"), [6])

    assert await StepIndex(store).latest(RUN) is None
    assert await StepIndex(store).steps(RUN) == []


@pytest.mark.parametrize("present", [range(500), range(30_000)])
async def test_latest_is_at_least_as_new_as_the_newest_when_it_was_called(present: range) -> None:
    """Steps that come while it searches may be found or not; nothing older is, and nothing that was not there."""
    store = CountedStore()
    await store.fill(RUN, present)
    coming = iter(range(present.stop, present.stop + 100_000))

    async def save_more() -> None:
        await store.fill(RUN, [next(coming) for _ in range(70)])

    for _ in range(3):
        store.reset()
        store.while_listing = save_more
        newest = (await store.store.list(RUN.steps, start_after=RUN.state(next(coming) - 2))).objects[-1:]
        found = await StepIndex(store).latest(RUN)

        assert found is not None
        assert await store.head(RUN.state(found))
        assert found >= (RUN.parse_state(newest[0].key) or 0 if newest else present.stop - 1)


async def test_a_remembered_step_that_was_deleted_misleads_nobody() -> None:
    """Deleting the newest steps, or the run, is seen by the next call."""
    store = CountedStore()
    await store.fill(RUN, range(2500))
    index = StepIndex(store)
    index.seen(RUN, 2499)

    await store.delete([RUN.state(step) for step in range(1200, 2500)])
    assert await index.latest(RUN) == 1199
    await store.delete([RUN.state(step) for step in range(1200)])
    assert await index.latest(RUN) is None
    await store.fill(RUN, [3])
    assert await index.latest(RUN) == 3


async def test_many_runs_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest hint gives way; without it the answer is the same."""
    monkeypatch.setattr("s3_checkpoint._runs.step_search.REMEMBERED_RUNS", 2)
    store = CountedStore()
    await store.fill(RUN, [1])
    index = StepIndex(store)

    for number in range(5):
        index.seen(RunKeys("", UUID(int=number)), 9)

    assert len(index._seen) == 2
    assert await index.latest(RUN) == 1


async def test_a_store_that_ignores_start_after_is_found_out() -> None:
    """Rather than taking an old step for the newest."""

    class Ignorant(CountedStore):
        async def _page(self, prefix: str, start_after: str, token: str | None, delimiter: str, limit: int) -> Page:
            return await super()._page(prefix, "", token, delimiter, limit)

    store = Ignorant()
    await store.fill(RUN, range(1500))

    with pytest.raises(StoreError, match="StartAfter"):
        await StepIndex(store).latest(RUN)


@pytest.mark.parametrize("after", [1, 3, 9])
@pytest.mark.parametrize("call", ["latest", "steps"])
async def test_a_failed_list_is_raised_and_nothing_continues_behind_it(call: str, after: int) -> None:
    """As our error, not in a group; and no LIST is in flight any more."""
    store = CountedStore()
    await store.fill(RUN, range(12_000))

    async def fail() -> None:
        if store.lists > after:
            raise StoreError("ListObjectsV2", "memory", RUN.steps, "failed")

    store.while_listing = fail
    with pytest.raises(StoreError, match="failed"):
        await getattr(StepIndex(store), call)(RUN)
    assert store.in_flight == 0


async def test_every_store_lists_a_long_run_alike(store: ObjectStore) -> None:
    """On a server as in memory: pages, tokens, StartAfter."""
    steps = [0, 1, 2, 50, 2**40, 2**63, MAX_STEP]
    for step in steps:
        await store.put(RUN.state(step), b"{}", ObjectAttributes(), mode="overwrite")

    index = StepIndex(store)
    assert await index.steps(RUN) == steps
    assert await index.latest(RUN) == MAX_STEP
    index.seen(RUN, 2**40)
    assert await index.latest(RUN) == MAX_STEP
