"""Each private part of the SDK relied on, taken away: requests go by the public way, and errors say whose they are."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore
import pytest
from aiobotocore.session import AioSession
from botocore.handlers import BUILTIN_HANDLERS
from moto import mock_aws

from s3_checkpoint import CheckpointError, S3Settings, StoreError, connect
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.prepared_requests import S3Requests
from s3_checkpoint._s3.sdk_internals import new_session, one_host, read_faster
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint._s3.tuning import tune
from s3_checkpoint.object_store import ObjectAttributes
from tests.s3.hostile_s3 import CALLS, WRITING, hostile_s3, session_of_a_caller, settings_for, sound
from tests.s3.test_prepared_requests import LOCAL, Recorder
from tests.states import RUN, Counter
from tests.warm_python import WarmPython, warm_python


class Without:
    """A client, or a part of one, as a version of the SDK would make it that has some attributes no longer."""

    def __init__(self, owner: Any, *names: str, **instead: Any) -> None:
        self.__dict__.update(_owner=owner, _names=names, **instead)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__["_names"]:
            raise AttributeError(name)
        return getattr(self.__dict__["_owner"], name)


class _Raising:
    """Events of a client, of which one kind takes other arguments than it did."""

    def __init__(self, events: Any, error: Exception) -> None:
        self._events, self._error = events, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._events, name)

    async def emit_until_response(self, *_: Any, **__: Any) -> Any:
        raise self._error


@pytest.mark.parametrize("name", ["_request_signer", "_make_request", "meta.events"])
async def test_a_request_that_cannot_be_prepared_goes_by_the_method(name: str) -> None:
    """Once, and with the same on the wire; and no further request is prepared."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        recorder = Recorder(client)
        without: Any = Without(client, name)
        if name == "meta.events":
            events = _Raising(client.meta.events, TypeError("emit_until_response() takes other arguments"))
            without = Without(client, meta=Without(client.meta, events=events))
        requests, plain = S3Requests(without, prepared=True), S3Requests(client, prepared=False)
        for each in (plain, requests, requests):
            await each.send("PutObject", {"Bucket": "b", "IfNoneMatch": "*"}, "k", body=b"x", metadata={"a": "b"})

    expected, *others = recorder.sent
    assert others == [expected, expected]


SDK = (
    *("aiobotocore.session", "aiobotocore.client", "aiobotocore.endpoint", "aiobotocore.httpchecksum"),
    *("botocore.handlers", "botocore.utils"),
)
MOVED = """
import asyncio, sys

assert not [module for module in sys.modules if module.startswith("s3_checkpoint")]
module, name = "NAME".rsplit(".", 1)
holder = sys.modules[module]
value = getattr(holder, name)
delattr(holder, name)
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
import s3_checkpoint._s3.sdk_internals, s3_checkpoint._s3.prepared_requests, s3_checkpoint._s3.tuning
setattr(holder, name, value)  # the SDK itself has it under another name
from tests.s3.hostile_s3 import CALLS, hostile_s3, settings_for, sound

async def main():
    async with hostile_s3() as server:
        settings = settings_for(server.url)
        async with client_for(settings) as client:
            for call, send in CALLS.items():
                server.answer = sound(call)
                await send(S3ObjectStore(client, settings))
        print(len(server.asked))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def sdk() -> Iterator[WarmPython]:
    """Processes in which the SDK is imported, and nothing of this library."""
    with warm_python(*SDK) as running:
        yield running


@pytest.mark.parametrize(
    "name",
    [
        "aiobotocore.hooks.AioHierarchicalEmitter",
        "botocore.handlers.BUILTIN_HANDLERS",
        "aiobotocore.httpchecksum.apply_request_checksum",
        "botocore.utils.percent_encode",
        "botocore.utils.percent_encode_sequence",
        "botocore.handlers.add_expect_header",
    ],
)
def test_a_function_of_the_sdk_that_has_moved_is_not_needed(sdk: WarmPython, tmp_path: Path, name: str) -> None:
    """Every call works as ever."""
    script = tmp_path / "moved.py"
    script.write_text(MOVED.replace("NAME", name))

    done = sdk.run(script, os.environ, tmp_path)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(CALLS)


async def test_an_endpoint_cache_that_does_not_fit_is_left_out() -> None:
    """The rules are asked for each request then."""

    class Slotted:
        __slots__ = ()

        def resolve_endpoint(self, **_: Any) -> None: ...

    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        rules: dict[str, list[object]] = {"rules": []}
        meta = Without(client.meta)
        tune(Without(client, "_ruleset_resolver", meta=meta), rules)
        tune(Without(client, _ruleset_resolver=Without(object(), "_provider"), meta=meta), rules)
        tune(Without(client, _ruleset_resolver=Without(object(), _provider=Slotted()), meta=meta), rules)
        recorder = Recorder(client)
        await S3ObjectStore(client, settings_for("http://127.0.0.1:9")).put("k", b"", ObjectAttributes(), mode="create")

    assert len(recorder.sent) == 1


def _called(session: AioSession) -> dict[str, list[Any]]:
    """For each event that the SDK has a handler for, all that is called, in its order."""
    events: Any = session.get_component("event_emitter")
    names = {str(spec[0]) for spec in BUILTIN_HANDLERS} | {"before-send.s3"}
    return {name: list(events._emitter._handlers.prefix_search(events._alias_event_name(name))) for name in names}


def test_a_session_has_the_handlers_of_the_sdk_and_those_of_no_other_session() -> None:
    """Copied, they are the same in the same order; what is added to the SDK's, as moto does, holds from then on."""

    def added(**_: Any) -> None: ...

    first, second = new_session(), new_session()
    expected = _called(AioSession())
    assert _called(first) == _called(second) == expected

    first.register("before-send.s3", added)
    assert added in _called(first)["before-send.s3"]
    assert _called(second) == _called(new_session()) == expected

    BUILTIN_HANDLERS.append(("before-send.s3", added))
    try:
        assert _called(new_session()) == _called(AioSession()) != expected
    finally:
        BUILTIN_HANDLERS.pop()
    assert _called(new_session()) == expected


def test_what_is_done_to_every_new_session_is_done_to_each_once() -> None:
    """As the SDK's plug-ins do it; also where no session has been made since the SDK's handlers are others."""

    def added(**_: Any) -> None: ...

    def of_the_sdk(**_: Any) -> None: ...

    def plug_in(session: AioSession) -> None:
        session.register("before-send.s3", added)

    BUILTIN_HANDLERS.append(("before-send.s3", of_the_sdk))
    botocore.register_initializer(plug_in)
    try:
        called = [_called(new_session())["before-send.s3"] for _ in range(2)]
    finally:
        botocore.unregister_initializer(plug_in)
        last = _called(new_session())
        BUILTIN_HANDLERS.pop()

    assert [handlers.count(added) for handlers in called] == [1, 1]
    assert added not in last["before-send.s3"]
    assert of_the_sdk in last["before-send.s3"]


@pytest.mark.parametrize("name", ["file_loader", "list_available_services", "list_api_versions"])
def test_a_loader_of_another_make_is_left_as_it_is(name: str) -> None:
    """Descriptions are read as the SDK reads them."""
    loader = Without(AioSession().get_component("data_loader"), name)
    read_faster(loader)

    assert set(vars(loader)) == {"_owner", "_names"}


@pytest.mark.parametrize("name", ["_endpoint", "_endpoint.http_session", "_get_session", "_proxy_config", "send"])
async def test_a_client_handed_in_of_another_make_is_used_as_it_is(name: str) -> None:
    """By its methods; then what its HTTP session does with redirects is the SDK's affair."""
    async with session_of_a_caller().create_client(
        "s3", region_name="eu-west-1", endpoint_url="http://127.0.0.1:9"
    ) as client:
        assert one_host(client) is not client
        endpoint = client._endpoint
        if name == "_endpoint.http_session":
            changed: Any = Without(endpoint, "http_session")
        else:
            changed = Without(endpoint, http_session=Without(endpoint.http_session, name))
        other = Without(client, "_endpoint") if name == "_endpoint" else Without(client, _endpoint=changed)

        assert one_host(other) is other


EVENTS = ("before-parameter-build", "before-sign", "before-send", "before-parse", "after-call")
INSIDE = (AttributeError("'S3' object has no attribute '_x'"), TypeError("missing argument"), KeyError("Shape"))


@pytest.mark.parametrize("call", CALLS)
async def test_an_error_inside_the_sdk_says_so(call: str) -> None:
    """Story: it read "the store refused the request", for a PUT too, which may have landed."""
    async with hostile_s3() as server:
        server.answer = sound(call)
        settings = settings_for(server.url)
        for event, error in itertools.product(EVENTS, INSIDE):

            def fail(error: Exception = error, **_: Any) -> None:
                raise error

            async with client_for(settings) as client:
                client.meta.events.register(f"{event}.s3", fail)
                with pytest.raises(StoreError, match=r"internal.*" + type(error).__name__) as caught:
                    await CALLS[call](S3ObjectStore(client, settings))

            assert caught.value.outcome_unknown == (call in WRITING)
            assert "refused" not in str(caught.value)
            assert ("may or may not" in str(caught.value)) == (call in WRITING)
            assert caught.value.__cause__ is error


async def test_the_cause_is_named_where_moto_patches_the_sdk() -> None:
    """Story: users of moto's decorator read "object bytes can't be used in 'await' expression"."""
    with mock_aws():
        async with connect(Counter, S3Settings(bucket="bucket", region_name="us-east-1")) as checkpointer:
            with pytest.raises(StoreError, match=r"ThreadedMotoServer.*MemoryStore") as caught:
                await checkpointer.save(RUN, 0, Counter(n=0))

    assert caught.value.outcome_unknown


def test_an_unknown_outcome_is_kept_by_pickle() -> None:
    """As all that an error carries."""
    error = StoreError("PutObject", "b", "k", "internal: x", outcome_unknown=True)

    copied: CheckpointError = pickle.loads(pickle.dumps(error))

    assert isinstance(copied, StoreError)
    assert copied.outcome_unknown
    assert str(copied) == str(error)
