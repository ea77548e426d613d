"""What the SDK itself does with a session store: mirroring and resuming an agent, and its functions on sessions."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from s3_checkpoint import MemoryStore, S3Settings
from s3_checkpoint.claude import S3SessionStore
from s3_checkpoint.testing import Aim, Counting, Unanswered
from tests.claude.test_sessions import KEY

if TYPE_CHECKING:
    from claude_agent_sdk import SessionStore

FAKE = Path(__file__).with_name("fake_cli.py")


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """For an agent whose command line is a stand-in."""
    command = tmp_path / "claude"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    work = tmp_path / "work"
    work.mkdir()
    config = tmp_path / "config"
    return {
        "cli_path": str(command),
        "cwd": str(work),
        "env": {"CLAUDE_CONFIG_DIR": str(config), "HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    }


async def asked(store: SessionStore, options: dict[str, Any], resume: str | None = None) -> tuple[str, str, int]:
    """Session id, reply, and how many batches the SDK could not store."""
    from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query
    from claude_agent_sdk.types import MirrorErrorMessage

    lost, reply = 0, ("", "")
    async for message in query(
        prompt="is it there?", options=ClaudeAgentOptions(session_store=store, resume=resume, **options)
    ):
        lost += isinstance(message, MirrorErrorMessage)
        if isinstance(message, ResultMessage):
            reply = message.session_id, str(message.result)
    return *reply, lost


async def test_an_agent_is_resumed_by_another_process(settings: S3Settings, options: dict[str, Any]) -> None:
    """What the first one has mirrored, with its subagent, is what the second one begins with."""
    first, second = S3SessionStore(settings), S3SessionStore(settings)
    session_id, nothing, _ = await asked(first, options)
    options["env"] = {**options["env"], "CLAUDE_CONFIG_DIR": options["env"]["CLAUDE_CONFIG_DIR"] + "-of-another"}

    again, reply, lost = await asked(second, options, resume=session_id)
    [info] = [info async for info in second.sessions()]
    await first.aclose()
    await second.aclose()

    assert (nothing, reply, lost) == ("0 entries", "2 entries", 0)
    assert again == info.session_id == session_id
    assert info.subagents == 1


@pytest.mark.parametrize("landed", [True, False])
async def test_a_batch_without_an_answer_is_stored_once_by_the_sdks_next_try(
    options: dict[str, Any], landed: bool
) -> None:
    """The agent continues, and its caller sees no error."""
    memory = MemoryStore()
    session_id, _, lost = await asked(S3SessionStore(Unanswered(memory, Aim("PutObject"), landed=landed)), options)
    [info] = [info async for info in S3SessionStore(memory).sessions()]
    found = await S3SessionStore(memory).load({"project_key": info.project_key, "session_id": session_id})

    assert lost == 0
    assert found is not None
    assert [entry["type"] for entry in found] == ["user", "assistant"]


async def test_the_sdks_functions_do_what_they_do_in_memory(tmp_path: Path) -> None:
    """Renaming, tagging, forking, listing, deleting: the same answers as those of the SDK's own store."""
    from claude_agent_sdk import InMemorySessionStore

    ours, theirs = S3SessionStore(MemoryStore()), InMemorySessionStore()
    told = [await _story(store, tmp_path) for store in (ours, theirs)]

    assert told[0] == told[1]


async def _story(store: SessionStore, folder: Path) -> list[str]:
    from claude_agent_sdk import (
        delete_session_via_store,
        fork_session_via_store,
        get_session_messages_from_store,
        list_sessions_from_store,
        project_key_for_directory,
        rename_session_via_store,
        tag_session_via_store,
    )

    session = "5f0e7d4c-0d1b-4a52-9f0e-0a5e3f1b2c3d"
    key: Any = {"project_key": project_key_for_directory(str(folder)), "session_id": session}
    parent = None
    for n in range(4):
        kind = ("user", "assistant")[n % 2]
        uuid = f"5f0e7d4c-0d1b-4a52-9f0e-00000000000{n}"
        entry: Any = {
            "type": kind,
            "uuid": uuid,
            "parentUuid": parent,
            "sessionId": session,
            "timestamp": f"2026-01-01T00:00:0{n}.000Z",
            "message": {"role": kind, "content": f"words {n}"},
        }
        await store.append(key, [entry])
        parent = uuid
    directory = str(folder)
    await rename_session_via_store(store, session, "a title", directory)
    await tag_session_via_store(store, session, "tagged", directory)
    fork = await fork_session_via_store(store, session, directory, title="a fork")
    told: list[object] = []
    for info in await list_sessions_from_store(store, directory):
        told.append((info.session_id == session, info.summary, info.tag, info.custom_title, info.first_prompt))
    for one in (session, fork.session_id):
        messages = await get_session_messages_from_store(store, one, directory)
        told.append([(message.type, message.message) for message in messages])
    await delete_session_via_store(store, session, directory)
    told.append(await store.load(key))
    told.append(len(await list_sessions_from_store(store, directory)))
    return sorted(map(repr, told))


async def test_a_listing_of_the_sdk_loads_no_session() -> None:
    """Summaries are as new as the sessions, so that the SDK believes them: 1 GET each."""
    from claude_agent_sdk import list_sessions_from_store, project_key_for_directory

    counting = Counting(MemoryStore())
    store = S3SessionStore(counting)
    project = project_key_for_directory(None)
    for name in "abc":
        key = {**KEY, "project_key": project, "session_id": name}
        for n in range(3):
            await store.append(key, [{"type": "user", "message": {"content": f"hello {n}"}}])
    counting.reset()

    listed = await list_sessions_from_store(store)

    assert len(listed) == 3
    assert counting.taken() == {"LIST": 2, "GET": 3}
