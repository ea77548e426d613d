"""What is imported, and when: a cold start pays for what it uses, and for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType

import pytest

import s3_checkpoint

SDK = {"aioboto3", "aiobotocore", "boto3", "botocore", "aiohttp"}
NEVER_FOR_A_SAVE = {"aioboto3", "boto3", "zstandard", "typer", "click", "rich", "langgraph", "opentelemetry"}


def _imported_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after `code`."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(found)


def _packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_importing_the_package_imports_next_to_nothing() -> None:
    """Neither the SDK nor pydantic, nor any module of its own."""
    modules = _imported_by("import s3_checkpoint")

    assert not _packages(modules) & (SDK | {"pydantic", "pydantic_settings", "asyncio"})
    assert {module for module in modules if module.startswith("s3_checkpoint")} == {"s3_checkpoint"}


def test_constructing_everything_imports_no_sdk() -> None:
    """It comes when a client is opened; and the sync facade, the admin and the supersteps only when asked for."""
    modules = _imported_by(
        "from s3_checkpoint import ActiveSnapshot, S3Settings, connect\nconnect(dict, S3Settings(bucket='bucket'))"
    )

    assert not _packages(modules) & (SDK | NEVER_FOR_A_SAVE)
    ours = {module for module in modules if module.startswith("s3_checkpoint.")}
    assert not ours & {f"s3_checkpoint.{name}" for name in ("sync", "run_admin", "superstep", "cli", "memory_store")}


def test_a_save_imports_nothing_that_it_does_not_need() -> None:
    """No resources of boto3, no compression, no command line: up to the answer of the first PUT."""
    modules = _imported_by("""
import asyncio, uuid
from s3_checkpoint import S3Settings, StoreUnavailableError, connect
settings = S3Settings(bucket='bucket', endpoint_url='http://127.0.0.1:1', region_name='us-east-1', max_attempts=1,
                      access_key_id='a', secret_access_key='b')
async def main():
    async with connect(dict, settings) as checkpointer:
        try:
            await checkpointer.save(uuid.uuid4(), 0, {})
        except StoreUnavailableError:
            print('asked')
asyncio.run(main())""")

    assert "aiobotocore" in modules
    brought_by_the_sdk = _imported_by("import aiobotocore.session")  # takes httpx along where that is installed
    assert not (_packages(modules) - _packages(brought_by_the_sdk)) & NEVER_FOR_A_SAVE
    assert not _packages(modules) & {"aioboto3", "boto3"}
    assert "s3_checkpoint.run_admin" not in modules


_FIRST_COMMIT = """
import asyncio, uuid
from s3_checkpoint import ActiveSnapshot, S3Settings, StoreUnavailableError, connect
settings = S3Settings(bucket='bucket', endpoint_url='http://127.0.0.1:1', region_name='us-east-1', max_attempts=1,
                      access_key_id='a', secret_access_key='b', transport=TRANSPORT)
async def main():
    async with connect(dict, settings) as checkpointer:
        try:
            await checkpointer.commit(uuid.uuid4(), 0, {}, [ActiveSnapshot(node_name='a')])
        except StoreUnavailableError:
            print('asked')
asyncio.run(main())"""

_FIRST_SUPERSTEP = """
import os
os.environ.update(S3_CHECKPOINT_BUCKET='bucket', S3_CHECKPOINT_ENDPOINT_URL='http://127.0.0.1:1',
                  AWS_REGION='us-east-1', AWS_ACCESS_KEY_ID='a', AWS_SECRET_ACCESS_KEY='b',
                  S3_CHECKPOINT_MAX_ATTEMPTS='1',
                  S3_CHECKPOINT_TRANSPORT='obstore', S3_CHECKPOINT_QUEUE_URL='https://sqs.eu-west-1.amazonaws.com/1/q')
from s3_checkpoint import END, Graph, Next
from s3_checkpoint.aws_lambda import sqs_handler
from s3_checkpoint.superstep_queue import SuperstepMessage
import uuid
async def node(state, task): return Next(1, END)
handler = sqs_handler(Graph(start='a', nodes={'a': node}, apply=lambda state, update: state), dict)
class Context:
    def get_remaining_time_in_millis(self): return 30000
body = SuperstepMessage.begin(uuid.uuid4(), {}).model_dump_json()
record = {'messageId': 'm', 'body': body, 'eventSource': 'aws:sqs', 'eventSourceARN': 'a', 'attributes': {}}
print(handler({'Records': [record]}, Context()))
"""


def test_lambda_with_obstore_imports_no_sdk_before_it_sends_a_message() -> None:
    """Up to the first request to S3, here one that is refused; the queue's client comes after the first commit."""
    modules = _imported_by(_FIRST_SUPERSTEP)

    assert "obstore" in modules
    assert not _packages(modules) & SDK


NEVER_FOR_A_COMMIT = NEVER_FOR_A_SAVE | {"gzip", "xml", "http", "multiprocessing"}


@pytest.mark.parametrize("transport", ["aiobotocore", "obstore"])
def test_a_first_commit_imports_only_what_commits(transport: str) -> None:
    """No command line, doctor, LangGraph, compression or time zones of ours: up to the first request, by either."""
    modules = _imported_by(_FIRST_COMMIT.replace("TRANSPORT", repr(transport)))

    ours = {module.removeprefix("s3_checkpoint.") for module in modules if module.startswith("s3_checkpoint.")}
    unwanted = ("cli", "doctor", "langgraph", "sync", "run_admin", "superstep", "aws_lambda", "memory_store", "policy")
    assert not {module for module in ours if module.partition(".")[0] in unwanted}
    assert not ours & {"_format.thread_keys", "_format.message_json", "_runs.fork", "_runs.retention", "run_models"}
    if transport == "obstore":
        assert not _packages(modules) & SDK
        assert not modules & NEVER_FOR_A_COMMIT, modules & NEVER_FOR_A_COMMIT
        assert "_s3" not in {module.partition(".")[0] for module in ours}
    else:
        assert "obstore" not in modules
        assert "_obstore" not in {module.partition(".")[0] for module in ours}


@pytest.mark.parametrize("name", s3_checkpoint.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """And is where the table says."""
    assert not isinstance(getattr(s3_checkpoint, name), ModuleType)
    assert name in dir(s3_checkpoint)


def test_the_public_names_are_sorted_and_each_has_one_home() -> None:
    """As ruff sorts them: constants, classes, functions."""
    from s3_checkpoint import _MODULES

    listed = [name for names in _MODULES.values() for name in names]
    assert sorted([*listed, "__version__"]) == sorted(s3_checkpoint.__all__)


@pytest.mark.parametrize("first", ["s3_checkpoint.connection", "s3_checkpoint.sync", "s3_checkpoint"])
def test_connect_is_the_function_whichever_module_came_first(first: str) -> None:
    """A submodule of the same name does not take its place."""
    _imported_by(f"import {first}\nfrom s3_checkpoint import connect\nassert callable(connect), connect")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="Nothing"):
        s3_checkpoint.Nothing  # type: ignore[attr-defined]  # noqa: B018


def test_an_adapter_without_its_extra_names_it() -> None:
    """Not a bare `No module named 'opentelemetry'`."""
    for package, module, extra in (
        ("opentelemetry", "s3_checkpoint.otel", "otel"),
        ("langgraph", "s3_checkpoint.langgraph", "langgraph"),
    ):
        program = f"import sys; sys.modules[{package!r}] = None; import {module}"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

        assert f"pip install 's3-checkpoint[{extra}]'" in ended.stderr
