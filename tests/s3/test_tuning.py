"""A tuned client asks S3 for the same, at less cost; a client that a caller hands in is left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import DataNotFoundError, UnknownServiceError
from botocore.handlers import add_expect_header

from s3_checkpoint import ActiveSnapshot, ConfigurationError, S3Settings, connect
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.sdk_internals import description, read_faster, rules_name_keys
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint._s3.tuning import ASKS_FIRST_BYTES, tune
from s3_checkpoint.object_store import ObjectAttributes
from tests.benchmarks.stub_process import StubProcess, running_stub
from tests.s3.sdk_requests import logged_client, new_session
from tests.states import RUN, Counter

KEYS = RunKeys("", UUID(int=1))


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProcess]:
    """An S3 that asks to continue where it is asked first, and counts round trips."""
    with running_stub() as stub:
        yield stub


@pytest.fixture
def stub_settings(stub: StubProcess) -> S3Settings:
    """Settings for a bucket on the stub."""
    fields = {"endpoint_url": stub.url, "region_name": "us-east-1", "access_key_id": "a", "secret_access_key": "b"}
    stub.set()
    return S3Settings.model_validate({"bucket": "bucket", **fields})


@pytest.mark.parametrize(("size", "round_trips"), [(10, 1), (ASKS_FIRST_BYTES, 1), (ASKS_FIRST_BYTES + 1, 2)])
async def test_a_large_body_alone_asks_before_it_is_sent(
    stub: StubProcess, stub_settings: S3Settings, size: int, round_trips: int
) -> None:
    """`Expect: 100-continue` costs a round trip; a refusal of a large body saves more."""
    async with logged_client(stub_settings) as log:
        store = S3ObjectStore(log.client, stub_settings)
        await store.put("key", b"x" * size, ObjectAttributes(), mode="create")

    assert stub.counts() == ({"PutObject": 1}, round_trips)
    assert ("Expect" in log.requests[0][1].headers) == (round_trips == 2)


async def test_saving_and_committing_are_one_round_trip(stub: StubProcess, stub_settings: S3Settings) -> None:
    """As the server sees it; two with large tasks. `resume` takes two, with large tasks three."""
    async with connect(Counter, stub_settings) as checkpointer:
        await checkpointer.save(RUN, 0, Counter(n=0))
        assert stub.counts() == ({"PutObject": 1}, 1)
        stub.set()
        await checkpointer.resume(RUN)
        assert stub.counts() == ({"ListObjectsV2": 1, "GetObject": 2}, 3)  # saved, so without tasks of its own
        stub.set(latency_ms=20)
        await checkpointer.commit(RUN, 1, Counter(n=1), [])
        assert stub.counts() == ({"PutObject": 2}, 1)
        stub.set(latency_ms=20)
        await checkpointer.commit(RUN, 2, Counter(n=2), [ActiveSnapshot(node_name="a", payload="x" * 2048)])
        assert stub.counts() == ({"PutObject": 2}, 2)
        stub.set(latency_ms=20)
        await checkpointer.resume(RUN)
        assert stub.counts() == ({"ListObjectsV2": 1, "GetObject": 2}, 3)
        await checkpointer.commit(RUN, 3, Counter(n=3), [])
        stub.set(latency_ms=20)
        await checkpointer.resume(RUN)
        assert stub.counts() == ({"ListObjectsV2": 1, "GetObject": 1}, 2)


def _rules_of(client: Any) -> Any:
    return client._ruleset_resolver._provider.ruleset


async def test_the_endpoint_is_worked_out_once_for_all_keys(stub_settings: S3Settings) -> None:
    """Whatever the key or prefix; once per bucket, and for what else the rules go by."""
    async with client_for(stub_settings) as client:
        rules = _rules_of(client)
        evaluate = rules.evaluate
        asked: list[dict[str, Any]] = []

        def counted(parameters: dict[str, Any]) -> Any:
            asked.append(parameters)
            return evaluate(parameters)

        rules.evaluate = counted

        store = S3ObjectStore(client, stub_settings)
        for step in range(5):
            await store.put(KEYS.state(step), b"{}", ObjectAttributes(), mode="overwrite")
            await store.list(KEYS.steps, start_after=KEYS.state(step))
        await client.put_object(Bucket="other", Key="key")

    assert [parameters["Bucket"] for parameters in asked] == ["bucket", "other"]


async def test_no_endpoint_rule_names_a_key() -> None:
    """Else the SDK's own way is kept."""
    model = AioSession().get_component("data_loader").load_service_model("s3", "endpoint-rule-set-1")
    assert {"Key", "Prefix"} <= set(model["parameters"])

    assert not rules_name_keys(model["rules"])
    assert rules_name_keys([*model["rules"], {"conditions": [{"fn": "isSet", "argv": [{"ref": "Key"}]}]}])
    assert rules_name_keys({"endpoint": {"url": "https://{Bucket}.{Prefix#x}.example"}})


@pytest.mark.parametrize("rules", [None, [{"conditions": [{"fn": "isSet", "argv": [{"ref": "Key"}]}]}]])
async def test_rules_that_name_keys_keep_the_sdks_own_way(stub_settings: S3Settings, rules: object) -> None:
    """Each key is then asked about for itself; so it is where there are no rules to look at."""
    url = stub_settings.endpoint_url
    async with new_session("a").create_client("s3", region_name="us-east-1", endpoint_url=url) as client:
        tune(client, rules)
        assert "resolve_endpoint" not in vars(client._ruleset_resolver._provider)


async def test_description_files_hold_the_same_however_they_are_read() -> None:
    """For every service that a credential chain may need; one that does not exist is unknown as ever."""
    plain, faster = (AioSession().get_component("data_loader") for _ in range(2))
    read_faster(faster)
    description.cache_clear()  # the SDK works a bucket's place in URLs into what it has read

    for service in ("s3", "sts", "sso", "sso-oidc"):
        for kind in ("service-2", "endpoint-rule-set-1"):
            assert faster.load_service_model(service, kind) == plain.load_service_model(service, kind)
    assert faster.load_data("endpoints") == plain.load_data("endpoints")
    for loader in (plain, faster):
        with pytest.raises(UnknownServiceError, match=r"'nothing'.*s3"):
            loader.load_service_model("nothing", "service-2")
        with pytest.raises(DataNotFoundError):
            loader.load_data("nothing")


async def test_description_files_are_read_once_for_all_clients(stub_settings: S3Settings) -> None:
    """The first client of a process reads them; that was most of what each further one cost."""
    async with client_for(stub_settings) as first:
        read = description.cache_info().misses
        async with client_for(stub_settings) as second:
            assert second is not first

    assert description.cache_info().misses == read


async def test_the_user_agent_is_the_same_for_every_request(
    stub_settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names this library, the SDK, and the application where one is configured."""
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "my-app")
    async with logged_client(stub_settings) as log:
        store = S3ObjectStore(log.client, stub_settings)
        await store.head("key")
        await store.list("key")

    agents = {request.headers["User-Agent"].decode() for _, request in log.requests}
    assert len(agents) == 1
    agent = agents.pop()
    assert agent.startswith("s3-checkpoint ")
    assert agent.count(" botocore/") == 1
    assert "app/my-app" in agent


async def test_a_client_handed_in_is_left_as_it_is(stub_settings: S3Settings, stub: StubProcess) -> None:
    """Its events, its endpoint provider; and all calls work through it."""
    async with new_session("a").create_client("s3", region_name="us-east-1", endpoint_url=stub.url) as client:
        before = client.meta.events._emitter._handlers.prefix_search("before-call.s3.PutObject")
        async with connect(Counter, stub_settings, client=client) as checkpointer:
            for step in range(3):
                await checkpointer.commit(UUID(int=5), step, Counter(n=step), [])
            assert await checkpointer.list(UUID(int=5)) == [0, 1, 2]
            assert await checkpointer.load(UUID(int=5)) == Counter(n=2)

        assert client.meta.events._emitter._handlers.prefix_search("before-call.s3.PutObject") == before
        assert add_expect_header in before
        assert "resolve_endpoint" not in vars(client._ruleset_resolver._provider)


async def test_credentials_and_region_come_from_the_aws_chain(
    stub: StubProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the profile named, as in any other AWS program; explicit ones win."""
    config = tmp_path / "config"
    config.write_text(
        "[profile team]\nregion = eu-north-1\naws_access_key_id = FROMPROFILE\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    profile = S3Settings(bucket="bucket", endpoint_url=stub.url, profile_name="team")
    chain = S3Settings(bucket="bucket", endpoint_url=stub.url)

    async def authorization(settings: S3Settings) -> str:
        async with logged_client(settings) as log:
            await S3ObjectStore(log.client, settings).head("key")
        return str(log.requests[0][1].headers["Authorization"])

    assert "FROMPROFILE/" in await authorization(profile)
    assert "/eu-north-1/" in await authorization(profile)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert "FROMENV/" in await authorization(chain)
    assert "/us-east-1/" in await authorization(chain)
    with pytest.raises(ConfigurationError, match="nobody"):
        await authorization(profile.model_copy(update={"profile_name": "nobody"}))
