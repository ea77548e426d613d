"""The real client behind a proxy that spoils answers: every call says what is true of the store behind it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from s3_checkpoint import S3Checkpointer, S3Settings, StepConflictError, StoreUnavailableError, connect
from s3_checkpoint._obstore.store import ObstoreObjectStore
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, Written
from s3_checkpoint.testing import Verb
from tests.proofs.ledger import RUN, Work, tasks_of
from tests.proofs.wire import Spoiling, Wire, wire_to

BREAKING: tuple[Spoiling, ...] = ("refuse", "cut", "reset", "headless")
LANDING: tuple[Spoiling, ...] = ("cut", "reset", "headless", "hold")


@pytest.fixture
def settings(settings_by_transport: S3Settings) -> S3Settings:
    """An empty bucket, asked by each transport in turn."""
    return settings_by_transport


@pytest.fixture
async def wire(moto_url: str) -> AsyncIterator[Wire]:
    async with wire_to(moto_url) as wire:
        yield wire


APART = {"inline_tasks": "never"}
"""A commit of two dependent PUTs, as of tasks too large for the metadata."""


@asynccontextmanager
async def opened(settings: S3Settings) -> AsyncIterator[ObjectStore]:
    """As `open_store`; but the attempts of obstore, which are counted here, follow one another without a pause."""
    if settings.transport != "obstore":
        async with open_store(settings) as store:
            yield store
        return
    light = ObstoreObjectStore(settings, backoff=lambda _: 0)
    try:
        yield light
    finally:
        light.close()


@asynccontextmanager
async def connected(settings: S3Settings) -> AsyncIterator[S3Checkpointer[Work]]:
    """As `connect`, on a store of `opened`."""
    async with opened(settings) as store, connect(Work, settings, store=store) as checkpointer:
        yield checkpointer


@pytest.fixture
async def clean(settings: S3Settings) -> AsyncIterator[S3Checkpointer[Work]]:
    """A checkpointer that does not go through the proxy."""
    async with connect(Work, settings.model_copy(update=APART)) as checkpointer:
        yield checkpointer


@pytest.fixture
async def spoilt(
    settings: S3Settings, wire: Wire, request: pytest.FixtureRequest
) -> AsyncIterator[S3Checkpointer[Work]]:
    """A checkpointer on the same bucket, through the proxy; one attempt, so that the HTTP library's own is seen.

    obstore's HTTP library makes none of its own: there the second is ours.
    It loses patience only where an answer is held for ever: else a slow machine would look like a bad wire.
    """
    held = "hold" in request.node.callspec.params.values() if hasattr(request.node, "callspec") else False
    attempts = 2 if settings.transport == "obstore" else 1
    patience = {"max_attempts": attempts, "read_timeout_s": 1.0 if held else 60.0, **APART}
    async with connected(settings.model_copy(update={"endpoint_url": wire.url, **patience})) as checkpointer:
        yield checkpointer


async def shows(checkpointer: S3Checkpointer[Work], label: str) -> None:
    """The step is there whole, with this content."""
    found = await checkpointer.resume(RUN)
    assert found is not None
    assert (found.step, found.state.label, list(found.active)) == (5, label, tasks_of(label))


@pytest.mark.parametrize("spoiling", BREAKING)
@pytest.mark.parametrize("kind", ["active", "steps"])
async def test_a_commit_whose_answer_is_lost_once_is_a_success(
    wire: Wire, spoilt: S3Checkpointer[Work], clean: S3Checkpointer[Work], kind: str, spoiling: Spoiling
) -> None:
    """The HTTP library sends the PUT again, below the SDK's count of attempts; a refusal of that is not believed."""
    wire.spoil(spoiling, "PutObject", f"/{kind}/")

    await spoilt.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    await shows(clean, "a")
    puts = ["PutObject active", "PutObject steps"]
    puts.insert(puts.index(f"PutObject {kind}"), f"PutObject {kind}")
    looked = ["GetObject steps"] if kind == "steps" and spoiling != "refuse" else []
    assert wire.verbs() == ["ListObjectsV2", *puts, *looked]


@pytest.mark.parametrize("spoiling", [*BREAKING, "hold"])
@pytest.mark.parametrize("kind", ["active", "steps"])
async def test_a_commit_that_is_never_answered_says_that_nothing_is_known(
    wire: Wire, spoilt: S3Checkpointer[Work], clean: S3Checkpointer[Work], kind: str, spoiling: Spoiling
) -> None:
    """It may have landed or not; the same call again, on a wire that works, is a success and makes no second step."""
    wire.spoil(spoiling, "PutObject", f"/{kind}/", times=99)

    with pytest.raises(StoreUnavailableError) as caught:
        await spoilt.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    assert caught.value.outcome_unknown
    if spoiling == "hold":
        await wire.until_held()
    landed = await clean.load(RUN, 5) is not None
    assert landed == (kind == "steps" and spoiling in LANDING)
    wire.rules.clear()
    wire.release.set()
    again = clean if spoiling == "hold" else spoilt  # one that lost patience may lose it on a slow machine too
    await again.commit(RUN, 5, Work(label="a"), tasks_of("a"))
    await shows(clean, "a")


@pytest.mark.parametrize("spoiling", [*BREAKING, "hold"])
async def test_a_commit_that_cannot_look_says_that_nothing_is_known(
    wire: Wire, spoilt: S3Checkpointer[Work], clean: S3Checkpointer[Work], spoiling: Spoiling
) -> None:
    """Story: it landed, its repeat was refused, the GET broke off, and the error said that nothing was written."""
    wire.spoil("cut", "PutObject", "/steps/")
    wire.spoil(spoiling, "GetObject", "/steps/0", times=99)

    with pytest.raises(StoreUnavailableError) as caught:
        await spoilt.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    assert caught.value.outcome_unknown
    await shows(clean, "a")


@pytest.mark.parametrize("spoiling", ["cut", "reset", "headless", "truncate"])
async def test_a_refusal_that_breaks_off_is_still_a_conflict(
    wire: Wire, settings: S3Settings, spoilt: S3Checkpointer[Work], clean: S3Checkpointer[Work], spoiling: Spoiling
) -> None:
    """The 412 of a loser is lost; asked again, the store says the same. An answer half read is not asked for again by
    the HTTP library; by us it is."""
    assert await spoilt.resume(RUN) is None  # it has looked, and does not look again before it sends
    await clean.commit(RUN, 5, Work(label="b"), tasks_of("b"))
    wire.spoil(spoiling, "PutObject", "/steps/")

    alone = spoiling == "truncate" and settings.transport == "aiobotocore"
    told = StoreUnavailableError if alone else StepConflictError
    with pytest.raises(told):
        await spoilt.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    await shows(clean, "b")
    with pytest.raises(StepConflictError):
        await spoilt.commit(RUN, 5, Work(label="a"), tasks_of("a"))


async def test_a_body_that_breaks_off_is_read_again(
    wire: Wire, settings: S3Settings, clean: S3Checkpointer[Work]
) -> None:
    """Story: the SDK repeats a GET only until its answer begins; a connection lost in the body failed the call."""
    await clean.commit(RUN, 5, Work(label="a" * 5000), tasks_of("a"))
    wire.spoil("truncate", "GetObject", "/steps/", times=3)
    through = settings.model_copy(update={"endpoint_url": wire.url, "max_attempts": 4})

    async with connected(through) as checkpointer:
        assert await checkpointer.load(RUN, 5) == Work(label="a" * 5000)

    assert wire.verbs() == ["GetObject steps"] * 4


async def test_a_body_that_always_breaks_off_is_never_half_a_state(
    wire: Wire, settings: S3Settings, spoilt: S3Checkpointer[Work], clean: S3Checkpointer[Work]
) -> None:
    """Unavailable, after as many attempts as the settings say; nothing was to be written."""
    await clean.commit(RUN, 5, Work(label="a" * 5000), tasks_of("a"))
    wire.spoil("truncate", "GetObject", times=99)

    with pytest.raises(StoreUnavailableError) as caught:
        await spoilt.load(RUN, 5)

    assert not caught.value.outcome_unknown
    assert wire.verbs() == ["GetObject steps"] * (2 if settings.transport == "obstore" else 1)


@pytest.mark.parametrize("verb", ["GetObject", "HeadObject", "ListObjectsV2"])
@pytest.mark.parametrize("spoilings", [(*BREAKING, "truncate"), "hold"], ids=["breaking", "held"])
async def test_a_read_that_is_never_answered_is_never_an_empty_one(
    wire: Wire, spoilt: S3Checkpointer[Work], clean: S3Checkpointer[Work], verb: Verb, spoilings: tuple[Spoiling] | str
) -> None:
    """Every reading call either gives what is there or says that the store gave no usable answer."""
    await clean.commit(RUN, 5, Work(label="a"), tasks_of("a"))
    reads: dict[Verb, Callable[[], Awaitable[object]]] = {
        "GetObject": lambda: spoilt.load(RUN, 5),
        "HeadObject": lambda: spoilt.load_active(RUN, 5),
        "ListObjectsV2": lambda: spoilt.list(RUN),
    }

    for spoiling in ("hold",) if isinstance(spoilings, str) else spoilings:
        wire.rules.clear()
        wire.spoil(spoiling, verb, times=99)
        with pytest.raises(StoreUnavailableError) as caught:
            await reads[verb]()
        assert not caught.value.outcome_unknown


@pytest.mark.parametrize("seed", range(6))
async def test_two_rivals_on_bad_wires_agree_on_what_happened(
    moto_url: str, settings: S3Settings, clean: S3Checkpointer[Work], seed: int
) -> None:
    """Answers spoilt by lot, on both sides: success and conflict are as told, and who is told neither asks again."""
    chance = random.Random(seed)

    async def rival(label: str) -> bool:
        async with wire_to(moto_url) as wire:
            fates: list[Spoiling] = [*BREAKING, "truncate"]
            for verb, first in itertools.product(("PutObject", "GetObject"), range(1, 7)):
                if chance.random() < 0.5:
                    wire.spoil(chance.choice(fates), verb, first=first)  # type: ignore[arg-type]
            through = settings.model_copy(update={"endpoint_url": wire.url, "max_attempts": 1})
            async with connected(through) as checkpointer:
                while True:
                    try:
                        await checkpointer.commit(RUN, 5, Work(label=label), tasks_of(label))
                    except StepConflictError:
                        return False
                    except StoreUnavailableError:
                        continue
                    return True

    won = await asyncio.gather(rival("a"), rival("b"))

    assert sorted(won) == [False, True]
    await shows(clean, "a" if won[0] else "b")


@pytest.mark.parametrize("spoiling", LANDING)
async def test_a_save_says_what_is_known(
    wire: Wire, spoilt: S3Checkpointer[Work], clean: S3Checkpointer[Work], spoiling: Spoiling
) -> None:
    """An unconditional PUT may be sent twice without harm; never answered, its outcome is unknown."""
    wire.spoil(spoiling, "PutObject", times=99)

    with pytest.raises(StoreUnavailableError) as caught:
        await spoilt.save(RUN, 5, Work(label="a"))

    assert caught.value.outcome_unknown
    if spoiling == "hold":
        await wire.until_held()
    assert await clean.load(RUN, 5) == Work(label="a")


async def test_a_put_tells_that_it_was_repeated(wire: Wire, settings: S3Settings) -> None:
    """Its first attempt took effect, and what has happened since then may have been undone by the repeat."""
    plain = ObjectAttributes("text/plain")
    through_wire = settings.model_copy(update={"endpoint_url": wire.url, "max_attempts": 3})
    async with opened(through_wire) as store:
        answers = [await store.put("first", b"1", plain, mode="overwrite")]
        wire.spoil("cut", "PutObject", "second", times=2)

        answers.append(await store.put("second", b"2", plain, mode="overwrite"))

    assert [isinstance(answer, Written) and answer.repeated for answer in answers] == [False, True]
