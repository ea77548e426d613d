"""A session of the application: its credentials, profile and region hold, and it stays as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from s3_checkpoint import ConfigurationError, InvalidArgumentError, S3Settings, SyncS3Checkpointer, connect
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.langgraph import S3Saver
from tests.s3.hostile_s3 import PLAIN
from tests.s3.sdk_requests import RequestLog, new_session
from tests.s3.test_prepared_requests import Recorder
from tests.states import RUN, Counter

NOWHERE = {"bucket": "bucket", "endpoint_url": "http://127.0.0.1:9"}


def _aiobotocore(profile: str | None = None, access_key: str | None = None) -> Any:
    session = AioSession(profile=profile)
    if access_key:
        session.set_credentials(access_key, "secret")
        session.set_config_variable("region", "eu-west-1")
    return session


def _aioboto3(profile: str | None = None, access_key: str | None = None) -> Any:
    aioboto3 = pytest.importorskip("aioboto3", reason="aioboto3 is not installed beside this aiobotocore")
    if access_key is None:
        return aioboto3.Session(profile_name=profile)
    return aioboto3.Session(access_key, "secret", region_name="eu-west-1")


KINDS: dict[str, Callable[..., Any]] = {"aioboto3": _aioboto3, "aiobotocore": _aiobotocore}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_sessions_credentials_and_region_sign_the_requests(kind: str) -> None:
    """With AWS, where the region is the session's own."""
    settings = S3Settings(bucket="bucket")
    async with client_for(settings, KINDS[kind](access_key="AKIASESSION")) as client:
        log, _ = RequestLog(client), Recorder(client)
        await S3ObjectStore(client, settings).put("k", b"x", PLAIN, mode="create")

    [(_, request)] = log.requests
    headers = request.headers
    assert request.url == "https://bucket.s3.eu-west-1.amazonaws.com/k"
    assert "AKIASESSION" in str(headers["Authorization"])
    assert "/eu-west-1/s3/" in str(headers["Authorization"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_of_a_profile_asks_where_the_profile_says(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Credentials by `credential_process`, as SSO tools and role brokers give them; endpoint and addressing too."""
    keys = {"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "s", "SessionToken": "token-of-role"}
    (tmp_path / "give.py").write_text(f"print({json.dumps(json.dumps(keys))})")
    config = tmp_path / "config"
    config.write_text(
        f"[profile team]\nregion = eu-north-1\nendpoint_url = http://store.test:9\n"
        f"credential_process = {sys.executable} {tmp_path / 'give.py'}\ns3 =\n  addressing_style = virtual\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    settings = S3Settings(bucket="bucket")

    async with client_for(settings, KINDS[kind](profile="team")) as client:
        log, _ = RequestLog(client), Recorder(client)
        await S3ObjectStore(client, settings).put("k", b"x", PLAIN, mode="create")

    [(_, request)] = log.requests
    headers = request.headers
    assert request.url == "http://bucket.store.test:9/k"
    assert "AKIAPROCESS" in str(headers["Authorization"])
    assert "/eu-north-1/" in str(headers["Authorization"])
    assert "token-of-role" in str(headers["X-Amz-Security-Token"])


@pytest.mark.parametrize("kind", KINDS)
async def test_connect_takes_a_session(kind: str, settings: S3Settings) -> None:
    chain = settings.model_copy(update={"access_key_id": None, "secret_access_key": None})
    session = KINDS[kind](access_key="AKIASESSION")
    async with connect(Counter, chain, session=session) as checkpointer:
        await checkpointer.commit(RUN, 0, Counter(n=1), [])

    async with connect(Counter, settings) as checkpointer:
        assert await checkpointer.load(RUN) == Counter(n=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sync_checkpointer_takes_a_session(kind: str, settings: S3Settings) -> None:
    chain = settings.model_copy(update={"access_key_id": None, "secret_access_key": None})
    with SyncS3Checkpointer(Counter, chain, session=KINDS[kind](access_key="AKIASESSION")) as checkpointer:
        checkpointer.commit(RUN, 0, Counter(n=1), [])

        assert checkpointer.load(RUN) == Counter(n=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_langgraph_saver_takes_a_session(kind: str, settings: S3Settings) -> None:
    chain = settings.model_copy(update={"access_key_id": None, "secret_access_key": None})
    with S3Saver(chain, session=KINDS[kind](access_key="AKIASESSION")) as saver:
        assert list(saver.list({"configurable": {"thread_id": "t"}})) == []


async def test_a_session_stays_as_it_is() -> None:
    """Its user agent, its reader of descriptions, and what its own clients do."""
    session = new_session("AKIASESSION")
    session.user_agent_extra = "my-application/1"
    loader = session.get_component("data_loader")
    before = (session.user_agent(), loader.file_loader, vars(loader).get("list_available_services"))
    settings = S3Settings.model_validate(NOWHERE)

    async with client_for(settings, session) as client:
        log, _ = RequestLog(client), Recorder(client)
        await S3ObjectStore(client, settings).put("k", b"x", PLAIN, mode="create")

    assert (session.user_agent(), loader.file_loader, vars(loader).get("list_available_services")) == before
    [(_, request)] = log.requests
    assert "my-application/1" in str(request.headers["User-Agent"])


async def test_the_handlers_of_a_session_see_every_request() -> None:
    """Those of events that prepared requests leave out, too: a session may set a parameter by the key."""
    session = new_session("AKIASESSION")

    def tag_by_key(params: dict[str, Any], **_: Any) -> None:
        params["Tagging"] = f"key={params['Key']}"

    session.register("provide-client-params.s3.PutObject", tag_by_key)
    settings = S3Settings.model_validate(NOWHERE)
    async with client_for(settings, session) as client:
        recorder = Recorder(client)
        store = S3ObjectStore(client, settings)
        for key in "abc":
            await store.put(key, b"x", PLAIN, mode="create")

    assert [headers["x-amz-tagging"] for _, _, headers, *_ in recorder.sent] == [b"key=a", b"key=b", b"key=c"]


async def test_a_sessions_own_client_configuration_holds_where_the_settings_say_nothing() -> None:
    session = new_session("AKIASESSION")
    session.set_default_client_config(AioConfig(s3={"addressing_style": "path"}))
    settings = S3Settings(bucket="bucket", region_name="eu-west-1")

    async with client_for(settings, session) as client:
        log, _ = RequestLog(client), Recorder(client)
        await S3ObjectStore(client, settings).put("k", b"x", PLAIN, mode="create")

    assert log.requests[0][1].url == "https://s3.eu-west-1.amazonaws.com/bucket/k"


@pytest.mark.parametrize("session", [boto3.Session("a", "b"), "team", object()], ids=["boto3", "text", "object"])
async def test_a_session_of_another_kind_is_refused(session: object) -> None:
    """A session of boto3 blocks the event loop."""
    with pytest.raises(ConfigurationError, match=r"aioboto3\.Session"):
        async with connect(Counter, S3Settings.model_validate(NOWHERE), session=session):
            pass


@pytest.mark.parametrize("fields", [{"access_key_id": "a", "secret_access_key": "b"}, {"profile_name": "team"}])
async def test_credentials_of_session_and_settings_are_one_too_many(fields: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="not from both"):
        async with connect(Counter, S3Settings.model_validate(NOWHERE | fields), session=new_session("a")):
            pass


async def test_a_session_together_with_a_client_is_refused() -> None:
    settings = S3Settings.model_validate(NOWHERE)
    async with client_for(settings, session := new_session("a")) as client:
        with pytest.raises(InvalidArgumentError, match="session"):
            connect(Counter, settings, client=client, session=session)
