"""What was appended is loaded, once and in order, whatever became of answers; what was deleted is not."""

from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s3_checkpoint import (
    ConfigurationError,
    InvalidArgumentError,
    LifecycleError,
    MemoryStore,
    S3Settings,
    StateDecodingError,
    StateEncodingError,
    StoreUnavailableError,
)
from s3_checkpoint._format.session_keys import MAX_NUMBER, Transcript, clock_key, parse_project, parse_transcript
from s3_checkpoint.claude import S3SessionStore, SyncS3SessionStore
from s3_checkpoint.claude.session_log import SessionLog
from s3_checkpoint.object_store import ObjectAttributes
from s3_checkpoint.testing import Aim, AnswerLost, Conflict409, CorruptBody, SlowDown503, StoreWrapper, Unanswered
from s3_checkpoint.testing.counting import Counting
from tests.claude.conftest import NewStore
from tests.leases.test_lease import StoreClock
from tests.request_tables import requests_on

KEY = {"project_key": "proj", "session_id": "sess"}
SUB = {**KEY, "subpath": "subagents/agent-1"}
NONE_OLD = timedelta(hours=1)
AnySessions = Any


def entry(n: int, **more: object) -> dict[str, object]:
    return {"type": "x", "n": n, **more}


async def numbers(sessions: AnySessions, key: dict[str, str] = KEY) -> list[int] | None:
    found = await sessions.load(key)
    return None if found is None else [one["n"] for one in found]


async def filled(sessions: AnySessions, count: int, key: dict[str, str] = KEY) -> None:
    for n in range(count):
        await sessions.append(key, [entry(n)])


async def test_appends_of_two_processes_are_one_order(new_sessions: NewStore) -> None:
    """Each finds what the other has appended since, by the numbers alone."""
    one, two = new_sessions(), new_sessions()
    for n in range(0, 12, 2):
        await one.append(KEY, [entry(n)])
        await two.append(KEY, [entry(n + 1)])

    assert await numbers(one) == list(range(12))
    assert await numbers(new_sessions()) == list(range(12))


async def test_entries_of_one_uuid_count_once(new_sessions: NewStore) -> None:
    """Those without one are never taken for the same."""
    sessions = new_sessions()
    await sessions.append(KEY, [entry(1, uuid="a"), entry(2), entry(1, uuid="a")])
    await new_sessions().append(KEY, [entry(1, uuid="a"), entry(3, uuid="b"), entry(2)])

    assert await numbers(sessions) == [1, 2, 3, 2]


async def test_entries_without_a_uuid_all_count(new_sessions: NewStore) -> None:
    """An empty one names none, nor does what is no text."""
    sessions = new_sessions()
    for uuid in ("", "", None, None, 5, 5):
        await sessions.append(KEY, [entry(1, uuid=uuid)])

    assert await numbers(sessions) == [1] * 6


async def test_entries_that_can_be_read_only_once_are_refused(new_sessions: NewStore) -> None:
    """Unread, as an argument that cannot be."""
    entries: Any = iter([entry(1)])

    with pytest.raises(InvalidArgumentError, match="must be a list of entries"):
        await new_sessions().append(KEY, entries)

    assert len(list(entries)) == 1


async def test_sessions_go_over_the_transport_that_the_settings_name(settings_by_transport: S3Settings) -> None:
    """As the states of `connect` and the checkpoints of `S3Saver` do."""

    async def kind_of_store(log: SessionLog) -> str:
        return type(log.store).__module__

    async with S3SessionStore(settings_by_transport) as sessions:
        await sessions.append(KEY, [entry(0)])

        assert await numbers(sessions) == [0]
        kind = await sessions._opening.acall(kind_of_store)
    assert kind == f"s3_checkpoint.{'_obstore' if settings_by_transport.transport == 'obstore' else '_s3'}.store"


@pytest.mark.parametrize("number", [1, 2])
async def test_an_append_whose_answer_was_lost_is_there_once(number: int) -> None:
    """The HTTP client sends it again, and its own success refuses it."""
    memory = MemoryStore()
    sessions = S3SessionStore(AnswerLost(memory, Aim("PutObject", first=number)))
    await filled(sessions, 3)

    assert await numbers(sessions) == [0, 1, 2]


@pytest.mark.parametrize("landed", [True, False])
async def test_a_batch_that_is_handed_in_again_is_stored_once(landed: bool) -> None:
    """As the SDK does it after an error, whether or not the first try had landed; uuids are not needed for it."""
    memory = MemoryStore()
    sessions = S3SessionStore(Unanswered(memory, Aim("PutObject", first=2), landed=landed))
    await sessions.append(KEY, [entry(0)])
    batch = [entry(1), entry(2)]
    with pytest.raises(StoreUnavailableError) as unknown:
        await sessions.append(KEY, batch)
    await S3SessionStore(memory).append(KEY, [entry(9)])

    await sessions.append(KEY, batch)

    assert unknown.value.outcome_unknown
    assert await numbers(sessions) == ([0, 1, 2, 9] if landed else [0, 9, 1, 2])


async def test_an_append_that_was_refused_and_could_not_be_read_back_is_unknown() -> None:
    """What refused it may be its own first try; handed in again, it is stored once."""
    memory = MemoryStore()
    sessions = S3SessionStore(SlowDown503(AnswerLost(memory, Aim("PutObject", first=2)), Aim("GetObject")))
    await sessions.append(KEY, [entry(0)])

    with pytest.raises(StoreUnavailableError) as unknown:
        await sessions.append(KEY, [entry(1)])
    await sessions.append(KEY, [entry(1)])

    assert unknown.value.outcome_unknown
    assert await numbers(sessions) == [0, 1]


async def test_a_409_with_nothing_there_is_tried_again() -> None:
    """It says that another write was in hand, and that one may have failed."""

    async def at_once(_: float) -> None:
        return None

    memory = MemoryStore()
    sessions = S3SessionStore(Conflict409(memory, Aim("PutObject", times=3)), sleep=at_once)
    await filled(sessions, 2)

    assert await numbers(sessions) == [0, 1]


async def test_merged_parts_are_what_they_were(new_sessions: NewStore) -> None:
    """For those that read, those that append, and those that merge again."""
    sessions = new_sessions(merge_parts=0)
    await filled(sessions, 10)
    await sessions.append(SUB, [entry(7)])

    await sessions.compact(KEY)
    after_first = await numbers(new_sessions())
    await sessions.append(KEY, [entry(10)])
    await new_sessions().append(KEY, [entry(11)])
    await new_sessions().compact(KEY)

    assert after_first == list(range(10))
    assert await numbers(new_sessions()) == list(range(12))
    assert await numbers(sessions, SUB) == [7]


async def test_appends_merge_by_themselves() -> None:
    """A session of many turns is read in two round trips, though nobody prunes it."""
    counting = Counting(MemoryStore())
    sessions = S3SessionStore(counting, merge_parts=16)
    await filled(sessions, 100)
    reader = S3SessionStore(counting)
    counting.reset()

    found = await numbers(reader)

    assert found == list(range(100))
    assert counting.rounds == 2
    assert counting.requests["LIST"] == 1
    assert counting.requests["GET"] <= 17


async def test_merged_parts_go_when_they_are_older_than_grace() -> None:
    """By the store's clock."""
    clock = StoreClock()
    memory = MemoryStore(now=clock)
    sessions = S3SessionStore(memory, merge_parts=0)
    await filled(sessions, 5)

    young = await sessions.compact(KEY)
    clock.passes(3700)
    old = await sessions.compact(KEY)

    assert (young, old) == (0, 4)
    assert len(memory._objects) == 2
    assert await numbers(S3SessionStore(memory)) == list(range(5))


async def test_a_deleted_session_is_gone_for_all(new_sessions: NewStore) -> None:
    """A process that begins it again has nothing of it; one that was appending to it is told, until it loads it."""
    one, two = new_sessions(), new_sessions()
    await filled(one, 3)
    await one.append(SUB, [entry(0)])
    await two.append(KEY, [entry(3)])

    await two.delete(KEY)
    with pytest.raises(InvalidArgumentError, match="was removed") as told:
        await one.append(KEY, [entry(4)])
    with pytest.raises(InvalidArgumentError, match="was removed"):
        await one.append(KEY, [entry(5)])
    seen = await numbers(one), await one.list_sessions("proj"), await one.list_subkeys(KEY)
    await one.append(KEY, [entry(6)])
    await two.append(KEY, [entry(7)])

    assert told.value.argument == "session_id"
    assert seen == (None, [], [])
    assert await numbers(new_sessions()) == [6, 7]


async def test_deleting_is_repeatable_and_leaves_no_content() -> None:
    """What an append may still count on is emptied; the rest goes, and all of it in the end."""
    clock = StoreClock()
    memory = MemoryStore(now=clock)
    sessions = S3SessionStore(memory)
    await filled(sessions, 4)

    await sessions.delete(KEY)
    await sessions.delete(KEY)
    left = {stored.body for stored in memory._objects.values()}
    clock.passes(3700)
    pruned = await sessions.prune()

    assert left == {b""}
    assert pruned.objects == 5
    assert not memory._objects


async def test_pruning_by_age_takes_a_session_whole_or_leaves_it_whole() -> None:
    """One that is written again stays, its first entries too; subagents count as their session."""
    clock = StoreClock()
    memory = MemoryStore(now=clock)
    sessions = S3SessionStore(memory)
    for name in ("old", "written", "subagent"):
        await sessions.append({**KEY, "session_id": name}, [entry(1)])
        await sessions.append({**SUB, "session_id": name}, [entry(2)])
    clock.passes(86_400)
    await sessions.append({**KEY, "session_id": "written"}, [entry(3)])
    await sessions.append({**SUB, "session_id": "subagent"}, [entry(4)])

    trial = await sessions.prune(timedelta(hours=12), dry_run=True)
    pruned = await sessions.prune(timedelta(hours=12))

    assert trial.sessions == pruned.sessions == (("proj", "old"),)
    assert (pruned.kept, trial.kept) == (2, 2)
    assert await numbers(sessions, {**KEY, "session_id": "old"}) is None
    assert await sessions.list_subkeys({**KEY, "session_id": "old"}) == []
    assert await numbers(sessions, {**KEY, "session_id": "written"}) == [1, 3]
    assert await numbers(sessions, {**SUB, "session_id": "subagent"}) == [2, 4]


class AppendsJustBefore(StoreWrapper):
    """Another process appends just before the empty part is written."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: Any) -> Any:
        if not body and mode == "create":
            await S3SessionStore(self.store).append(KEY, [entry(1)])
        return await super().put(key, body, attributes, mode=mode)


async def test_a_session_that_is_appended_to_while_it_is_pruned_stays_whole() -> None:
    """The append was first at the number that the deletion needs."""
    clock = StoreClock()
    memory = MemoryStore(now=clock)
    await S3SessionStore(memory).append(KEY, [entry(0)])
    clock.passes(86_400)

    pruned = await S3SessionStore(AppendsJustBefore(memory)).prune(timedelta(hours=1))

    assert (pruned.sessions, pruned.kept) == ((), 1)
    assert await numbers(S3SessionStore(memory)) == [0, 1]


@pytest.mark.parametrize("hours", [-5, 0, 5])
async def test_skewed_clocks_change_neither_the_order_nor_what_is_removed(hours: int) -> None:
    """Of this process and of the store: the order is by number, ages are by the store alone."""
    clock = StoreClock(datetime.now(UTC) + timedelta(hours=hours))
    memory = MemoryStore(now=clock)
    one, two = S3SessionStore(memory, merge_parts=0), S3SessionStore(memory, merge_parts=0)
    for n in range(0, 8, 2):
        await one.append(KEY, [entry(n, timestamp="2030-01-01T00:00:00Z")])
        clock.passes(-60)
        await two.append(KEY, [entry(n + 1, timestamp="2020-01-01T00:00:00Z")])

    removed = await one.compact(KEY)
    pruned = await one.prune(timedelta(hours=2))

    assert removed == 0
    assert pruned.sessions == ()
    assert await numbers(S3SessionStore(memory)) == list(range(8))


async def test_requests_are_as_the_table_says() -> None:
    """The page has most of it."""
    counting = Counting(MemoryStore())
    sessions = S3SessionStore(counting, merge_parts=0)
    taken: dict[str, dict[str, int]] = {}

    async def of(name: str, work: Any) -> None:
        counting.reset()
        await work
        taken[name] = counting.taken()

    await of("append, new to the process", sessions.append(KEY, [entry(0)]))
    await of("append", sessions.append(KEY, [entry(1)]))
    await of("append, nothing", sessions.append(KEY, []))
    other = S3SessionStore(counting, merge_parts=0)
    await of("append, begun by another process", other.append(KEY, [entry(2)]))
    await of("append, another was first", sessions.append(KEY, [entry(3)]))
    await of("load", other.load(KEY))
    await of("append, loaded before", other.append(KEY, [entry(4)]))
    await of("load, nothing there", other.load({**KEY, "session_id": "none"}))
    await sessions.append(SUB, [entry(0)])
    await of("list_sessions", sessions.list_sessions("proj"))
    await of("list_session_summaries", sessions.list_session_summaries("proj"))
    await of("list_subkeys", sessions.list_subkeys(KEY))
    await of("compact", sessions.compact(SUB))
    await of("compact, 5 parts", sessions.compact({**KEY}))
    await of("load, merged", sessions.load(KEY))
    await of("delete, subpath", sessions.delete(SUB))
    await of("delete", sessions.delete(KEY))

    assert taken == {
        "append, new to the process": {"LIST": 1, "PUT": 1},
        "append": {"PUT": 1},
        "append, nothing": {},
        "append, begun by another process": {"LIST": 1, "GET": 1, "PUT": 1},
        "append, another was first": {"PUT": 2, "GET": 1},
        "load": {"LIST": 1, "GET": 4},
        "append, loaded before": {"PUT": 1},
        "load, nothing there": {"LIST": 1},
        "list_sessions": {"LIST": 1},
        "list_session_summaries": {"LIST": 1, "GET": 1},
        "list_subkeys": {"LIST": 1},
        "compact": {"LIST": 1},
        "compact, 5 parts": {"LIST": 4, "GET": 4, "PUT": 1, "HEAD": 1},
        "load, merged": {"LIST": 1, "GET": 2},
        "delete, subpath": {"LIST": 1, "PUT": 2, "HEAD": 1},
        "delete": {"LIST": 3, "PUT": 6, "HEAD": 1, "DELETE": 1},
    }
    documented = requests_on("guides/claude-agent-sdk.md")
    assert len(documented) == 12
    assert documented == {call: taken[call] for call in documented}


@pytest.mark.parametrize(
    "wrong",
    [[{"n": float("nan")}], [{"n": (1, 2)}], [{1: 2}], ["text"], [{"n": {1}}], [{"big": "x" * 2000}]],
    ids=["nan", "tuple", "int-key", "no-dict", "set", "too-large"],
)
async def test_entries_that_would_not_come_back_are_refused_before_any_request(wrong: Any) -> None:
    """With the path of the entry."""
    counting = Counting(MemoryStore())

    with pytest.raises(StateEncodingError):
        await S3SessionStore(counting, max_state_bytes=1000).append(KEY, [{"type": "x"}, *wrong])

    assert not counting.sent


async def test_half_a_surrogate_pair_and_line_separators_come_back(sessions: AnySessions) -> None:
    """JavaScript cuts strings wherever it likes."""
    entries = [{"type": "x", "text": "a\ud83d", "more": "b\u2028c\nd\x00", "deep": [{"é": None, "f": 1.5e300}]}]
    await sessions.append(KEY, entries)

    assert await sessions.load(KEY) == entries


@pytest.mark.parametrize(
    "key",
    [
        {"project_key": "p"},
        {"project_key": "", "session_id": "s"},
        {"project_key": "p", "session_id": "s", "subpath": ""},
        {"project_key": "p", "session_id": 7},
        {"project_key": "p" * 600, "session_id": "s" * 600},
        {"project_key": "\ud800", "session_id": "s"},
    ],
    ids=["no-session", "empty", "empty-subpath", "int", "long", "surrogate"],
)
async def test_a_key_that_cannot_be_is_refused_before_any_request(key: Any) -> None:
    """Keys of any other text are kept apart."""
    counting = Counting(MemoryStore())
    sessions = S3SessionStore(counting)

    with pytest.raises(InvalidArgumentError):
        await sessions.append(key, [entry(1)])
    with pytest.raises(InvalidArgumentError):
        await sessions.load(key)
    assert not counting.sent


@pytest.mark.parametrize(
    ("source", "options"),
    [(7, {}), (MemoryStore(), {"grace": timedelta(0)}), (MemoryStore(), {"max_state_bytes": -1})],
    ids=["no-store", "grace", "bytes"],
)
def test_options_out_of_bounds_are_refused(source: Any, options: Any) -> None:
    """Before anything is opened."""
    with pytest.raises(InvalidArgumentError):
        S3SessionStore(source, **options)


ODD = ["a/b", "a", "..", ".", "main", "sub", "parts", "a%2Fb", "ü", "a b", "clock.json", "x" * 200]


def test_keys_are_built_and_parsed_alike() -> None:
    """No name can leave its place, or be taken for another."""
    transcripts = [
        Transcript.checked("pre", project, session, sub)
        for project in ODD
        for session in ODD
        for sub in (None, *ODD[:4])
    ]
    roots = [transcript.root for transcript in transcripts]

    assert len(set(roots)) == len(roots)
    for transcript in transcripts:
        for key in (transcript.part(0), transcript.part(MAX_NUMBER), transcript.merged(3, 9)):
            assert parse_transcript("pre", transcript.project_key, key) == transcript
        assert transcript.parse(transcript.part(7)) == (7, 7, False)
        assert transcript.parse(transcript.merged(3, 9)) == (3, 9, True)
        assert transcript.parse(transcript.root + "parts/7.jsonl") is None
        assert parse_project("pre", f"pre/sessions/{roots[0].split('/')[2]}/") == ODD[0]
        assert not clock_key("pre").startswith(transcript.root)


async def test_damage_is_an_error_and_never_a_shorter_session() -> None:
    """A body that is not what it was, a part that is gone by other means."""
    memory = MemoryStore()
    await filled(S3SessionStore(memory), 3)

    with pytest.raises(StateDecodingError, match="digest"):
        await S3SessionStore(CorruptBody(memory, lambda body: body.replace(b"1", b"2"))).load(KEY)
    await memory.delete([Transcript("", "proj", "sess").part(1)])
    with pytest.raises(StateDecodingError, match="not there"):
        await S3SessionStore(memory).load(KEY)
    with pytest.raises(StateDecodingError, match="more than"):
        await S3SessionStore(memory, max_session_bytes=10).load(KEY)


async def test_foreign_objects_under_a_session_are_passed_over() -> None:
    """What does not parse is none of ours, and stays."""
    memory = MemoryStore()
    sessions = S3SessionStore(memory)
    await filled(sessions, 2)
    foreign = ["notes.txt", "parts/7.jsonl", "merged/000000000009-000000000003.jsonl", "parts/000000000009.jsonl.bak"]
    for name in foreign:
        await memory.put(f"sessions/proj/main/sess/{name}", b"?", ObjectAttributes(), mode="create")

    before = await numbers(S3SessionStore(memory))
    await sessions.compact(KEY)
    await sessions.delete(KEY)

    assert before == [0, 1]
    assert await numbers(S3SessionStore(memory)) is None
    assert sum("sess/" + name in key for key in memory._objects for name in foreign) >= len(foreign)


async def test_appending_without_conditional_writes_is_refused() -> None:
    """Two processes could overwrite each other."""
    with pytest.raises(ConfigurationError, match="conditional_writes"):
        await S3SessionStore(MemoryStore(), conditional_writes=False).append(KEY, [entry(1)])


async def test_sessions_for_an_operator(sessions: AnySessions) -> None:
    """Of all projects, with their subagents."""
    await filled(sessions, 2)
    await sessions.append(SUB, [entry(1)])
    await sessions.append({"project_key": "a/b", "session_id": "other"}, [entry(1)])

    found = [info async for info in sessions.sessions()]

    assert [(info.project_key, info.session_id, info.subagents, info.objects) for info in found] == [
        ("a/b", "other", 0, 1),
        ("proj", "sess", 1, 3),
    ]
    assert all(info.bytes > 0 for info in found)


async def test_sessions_are_listed_one_after_the_other_whatever_their_names() -> None:
    """Each once, with all its subagents; in order, and from a store that lists in none."""
    names = ["a", "a/b", "a%2Fb", "ab", "a.b", "A", "ü", "a b"]
    for ordered in (True, False):
        sessions = S3SessionStore(MemoryStore(ordered=ordered))
        for n, name in enumerate(names):
            for sub in range(n % 3):
                await sessions.append({**KEY, "session_id": name, "subpath": f"subagents/{sub}"}, [entry(1)])
            if n != 5:
                await sessions.append({**KEY, "session_id": name}, [entry(1)])

        found = {info.session_id: info.subagents async for info in sessions.sessions()}

        assert found == {name: n % 3 for n, name in enumerate(names) if n != 5}


def test_the_blocking_store_is_the_same_store(settings: S3Settings) -> None:
    """Every call of the one is a call of the other, and any event loop may use either."""
    with SyncS3SessionStore(settings) as blocking:
        blocking.append(KEY, [entry(1)])
        sessions = S3SessionStore(settings)

        async def in_a_loop() -> list[int] | None:
            await sessions.append(KEY, [entry(2)])
            return await numbers(sessions)

        first, second = asyncio.run(in_a_loop()), asyncio.run(in_a_loop())
        asyncio.run(sessions.aclose())
        assert (first, second) == ([1, 2], [1, 2, 2])
        assert [dict(found)["n"] for found in blocking.load(KEY) or []] == [1, 2, 2]
        assert [info.session_id for info in blocking.sessions()] == ["sess"]
        assert blocking.compact(KEY) == 0
        assert blocking.list_session_summaries("proj")[0]["session_id"] == "sess"
        assert blocking.prune(timedelta(0)).sessions == (("proj", "sess"),)
        assert blocking.list_sessions("proj") == []
        with pytest.raises(LifecycleError):
            asyncio.run(in_a_loop())


def test_both_stores_have_the_same_calls() -> None:
    """Same names, same arguments."""
    names = {name for name in vars(S3SessionStore) if not name.startswith("_")} - {"aclose"}

    assert {name for name in vars(SyncS3SessionStore) if not name.startswith("_")} - {"close"} == names
    for name in names:
        one, other = getattr(S3SessionStore, name), getattr(SyncS3SessionStore, name)
        assert inspect.signature(one).parameters == inspect.signature(other).parameters


def test_a_type_checker_takes_it_for_a_session_store() -> None:
    """`ClaudeAgentOptions` does."""
    from claude_agent_sdk import ClaudeAgentOptions, SessionStore

    store: SessionStore = S3SessionStore(MemoryStore())

    assert ClaudeAgentOptions(session_store=store).session_store is store
