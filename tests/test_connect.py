"""Settings, and what they make the client send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import pytest
from pydantic import SecretStr, ValidationError

from s3_checkpoint import (
    CheckpointError,
    ConfigurationError,
    InvalidArgumentError,
    LifecycleError,
    MemoryStore,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    StoreUnavailableError,
    SyncS3Checkpointer,
    connect,
    run_superstep,
)
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.aws_lambda import sqs_handler
from s3_checkpoint.lease import lease
from s3_checkpoint.settings import S3Options
from tests.s3.sdk_requests import logged_client, new_session
from tests.states import RUN, Counter


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments win; an empty variable counts as unset."""
    monkeypatch.setenv("S3_CHECKPOINT_BUCKET", "from-env")
    monkeypatch.setenv("S3_CHECKPOINT_PREFIX", "/team/")
    monkeypatch.setenv("S3_CHECKPOINT_MAX_ATTEMPTS", "7")
    monkeypatch.setenv("S3_CHECKPOINT_COMPRESSION", "")

    settings = S3Settings(max_attempts=2)

    assert (settings.bucket, settings.prefix, settings.max_attempts) == ("from-env", "team", 2)
    assert settings.compression is None


def test_connect_without_settings_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says which variable is missing."""
    with pytest.raises(ConfigurationError, match="S3_CHECKPOINT_BUCKET"):
        connect(Counter)
    monkeypatch.setenv("S3_CHECKPOINT_BUCKET", "from-env")
    connect(Counter)


def test_secrets_are_never_printed() -> None:
    """In no form, not in an error either."""
    settings = S3Settings(
        bucket="bucket",
        access_key_id="AKIA",
        secret_access_key=SecretStr("hunter2"),
        session_token=SecretStr("hunter3"),
    )

    assert "hunter" not in f"{settings!r} {settings!s} {settings.model_dump()} {settings.model_dump_json()}"
    with pytest.raises(ConfigurationError) as caught:
        S3Settings(bucket="bucket", secret_access_key=SecretStr("hunter2"))
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"bucket": ""},
        {"bucket": "bucket", "unknown": 1},
        {"bucket": "bucket", "endpoint_url": "localhost:9000"},
        {"bucket": "bucket", "endpoint_url": "ftp://x"},
        {"bucket": "bucket", "access_key_id": "a"},
        {"bucket": "bucket", "session_token": "a"},
        {"bucket": "bucket", "compression": "lzma"},
        {"bucket": "bucket", "expected_bucket_owner": "me"},
        {"bucket": "bucket", "max_attempts": 0},
        {"bucket": "bucket", "read_timeout_s": 0},
        {"bucket": "bucket", "max_state_bytes": 0},
        {"bucket": "bucket", "max_connections": 0},
    ],
)
def test_settings_out_of_bounds_are_refused(fields: dict[str, Any]) -> None:
    """Before anything is opened, with the field's name."""
    with pytest.raises(ConfigurationError) as caught:
        S3Settings(**fields)
    assert [*fields][-1] in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


GENERAL_NAMES = ["abc", "my-bucket", "my.bucket.1", "0" * 63, "team-111122223333-eu-west-1-an", "a.b-c", "1.2.3.4.5"]
ACCESS_POINTS = [
    "reports-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias",
    "reports-o1a4ulcd--ol-s3",
    "arn:aws:s3:eu-west-1:111122223333:accesspoint/reports",
    "arn:aws-cn:s3:cn-north-1:111122223333:accesspoint:reports",
    "arn:aws:s3::111122223333:accesspoint/mfzwi23gnjvgw.mrap",
    "arn:aws:s3-object-lambda:eu-west-1:111122223333:accesspoint/reports",
    "arn:aws:s3-outposts:us-west-2:111122223333:outpost/op-01ac5d28a6a232904/accesspoint/reports",
]
DIRECTORY_BUCKETS = ["team--use1-az4--x-s3", "team--usw2-lax1-az1--x-s3", "reports--use1-az4--xa-s3"]


@pytest.mark.parametrize("bucket", [*GENERAL_NAMES, *ACCESS_POINTS, *DIRECTORY_BUCKETS])
def test_bucket_names_that_s3_takes_are_accepted(bucket: str) -> None:
    """Alone, in a URL, and with a prefix behind it."""
    settings = S3Settings(bucket=bucket)

    assert settings.bucket == bucket
    assert settings.directory_bucket == (bucket in DIRECTORY_BUCKETS)
    assert S3Settings.resolve(bucket) == S3Settings.resolve(f"s3://{bucket}") == settings
    with_prefix = S3Settings.from_url(f"s3://{bucket}/team/a/")
    assert (with_prefix.bucket, with_prefix.prefix) == (bucket, "team/a")


@pytest.mark.parametrize(
    ("bucket", "told"),
    [
        ("", "S3_CHECKPOINT_BUCKET"),
        ("ab", "3 … 63 characters"),
        ("a" * 64, "3 … 63 characters"),
        ("MyBucket", "lower-case"),
        ("a_b", "lower-case|3 … 63"),
        ("my_bucket", "lower-case"),
        ("bucket-", "both ends"),
        (".bucket", "both ends"),
        ("bücket", "lower-case"),
        ("bucket\n", "lower-case"),
        ("a..b", "two dots"),
        ("192.168.5.4", "IP address"),
        ("999.1.1.1", "IP address"),
        ("xn--bucket", "xn--"),
        ("sthree-bucket", "sthree-"),
        ("amzn-s3-demo-bucket", "amzn-s3-demo-"),
        ("mfzwi23gnjvgw.mrap", "ARN"),
        ("sales--table-s3", "holds no objects"),
        ("team--x-s3", "name--zone--x-s3"),
        ("te.am--use1-az4--x-s3", "name--zone--x-s3"),
        ("s3://x/y", "s3:// URL"),
        ("https://bucket.s3.amazonaws.com", "not a URL"),
        ("bucket/prefix", "without slashes"),
        ("arn:aws:s3:::my-bucket", "not its ARN: my-bucket"),
        ("arn:aws:s3:eu-west-1:1111:accesspoint/reports", "ARN of an access point"),
        ("arn:aws:sns:eu-west-1:111122223333:topic", "ARN of an access point"),
    ],
)
def test_bucket_names_that_s3_does_not_take_are_refused(bucket: str, told: str) -> None:
    """When settings are made: no request says that the bucket does not exist."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        S3Settings(bucket=bucket)
    assert caught.value.bucket == bucket


def test_a_misspelt_setting_is_told_from_the_real_one() -> None:
    """At run time; a type checker says so before (`tests/typing`)."""
    with pytest.raises(ConfigurationError, match=r"no setting regoin_name \(did you mean region_name\?\)"):
        S3Settings(bucket="bucket", regoin_name="x")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"no setting regoin_name \(did you mean region_name\?\)"):
        S3Settings.from_url("s3://bucket", regoin_name="x")  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"connect\(\) got an unexpected keyword argument 'schema_versoin'; did you mean"
    ):
        connect(Counter, "bucket", schema_versoin=2)  # type: ignore[call-overload]


def test_a_variable_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its value, which may be a secret."""
    monkeypatch.setenv("S3_CHECKPOINT_OBJECT_TAGS", '{"hunter2": ')

    with pytest.raises(ConfigurationError, match="object_tags") as caught:
        S3Settings(bucket="bucket")
    assert (
        "hunter2" not in f"{caught.value} {caught.value.__context__ if not caught.value.__suppress_context__ else ''}"
    )


def test_the_options_are_the_fields_of_the_settings() -> None:
    """Two lists of one thing: that of the type checkers has the names and types of the real one."""
    options, fields = get_type_hints(S3Options), get_type_hints(S3Settings)

    assert options.keys() == S3Settings.model_fields.keys() - {"bucket"}
    for name, option in options.items():
        assert option in (fields[name], fields[name] | str), name  # secrets may be given as plain text


@pytest.mark.parametrize("named", ["url", "name", "settings", "environment"])
async def test_connect_takes_a_url_a_name_settings_or_the_environment(
    settings: S3Settings, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bucket, however it is named."""
    for name in ("endpoint_url", "access_key_id", "region_name"):
        monkeypatch.setenv(f"S3_CHECKPOINT_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.setenv("S3_CHECKPOINT_SECRET_ACCESS_KEY", "testing")
    if named == "environment":
        monkeypatch.setenv("S3_CHECKPOINT_BUCKET", settings.bucket)
    names: dict[str, S3Settings | str] = {
        "url": f"s3://{settings.bucket}",
        "name": settings.bucket,
        "settings": settings,
    }

    async with connect(Counter, names.get(named)) as checkpointer:
        await checkpointer.commit(RUN, 0, Counter(n=1), [])

    async with connect(Counter, settings) as checkpointer:
        assert await checkpointer.load(RUN) == Counter(n=1)


async def test_a_memory_store_takes_the_place_of_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment is read then; settings given all the same say where the objects go."""
    store = MemoryStore()
    monkeypatch.setenv("S3_CHECKPOINT_PREFIX", "not-this")
    async with connect(Counter, store=store) as checkpointer:
        await checkpointer.commit(RUN, 0, Counter(n=1), [])
    async with connect(Counter, "s3://my-bucket/team", store=store) as checkpointer:
        await checkpointer.commit(RUN, 1, Counter(n=2), [])

    keys = (await store.list("")).keys
    assert [key for key in keys if "/steps/" in key] == [
        f"runs/{RUN}/steps/{0:020}.json",
        f"team/runs/{RUN}/steps/{1:020}.json",
    ]


def test_a_store_excludes_what_is_for_a_bucket() -> None:
    """An option is never passed over in silence."""
    with pytest.raises(InvalidArgumentError, match="on_request does not go with a store"):
        connect(Counter, store=MemoryStore(), on_request=print)
    with pytest.raises(InvalidArgumentError, match="a store is given by keyword: store="):
        connect(Counter, MemoryStore())  # type: ignore[call-overload]


@pytest.mark.parametrize("store", [MemoryStore, 3, "my-bucket"], ids=str)
def test_something_else_in_the_place_of_a_store_is_told_what_would_do(store: Any) -> None:
    """A class without its parentheses, most often."""
    for call in (connect, SyncS3Checkpointer):
        with pytest.raises(InvalidArgumentError, match=r"an open object store, such as MemoryStore\(\)"):
            call(Counter, store=store)
    with pytest.raises(InvalidArgumentError, match=r"connect.* opens one on a bucket"):
        S3Checkpointer(Counter, store)


async def test_a_checkpointer_can_be_entered_like_a_connection() -> None:
    """It does nothing: the store's owner closes it."""
    async with S3Checkpointer(Counter, MemoryStore()) as checkpointer:
        await checkpointer.save(RUN, 0, Counter(n=1))

    assert await checkpointer.load(RUN) == Counter(n=1)


def test_settings_are_frozen() -> None:
    """Values, not switches."""
    with pytest.raises(ValidationError):
        S3Settings(bucket="bucket").bucket = "c"


def test_a_url_gives_bucket_and_prefix() -> None:
    """Other fields by keyword."""
    settings = S3Settings.from_url("s3://my-bucket/team/a%20b/", region_name="eu-central-1")

    assert (settings.bucket, settings.prefix, settings.region_name) == ("my-bucket", "team/a b", "eu-central-1")
    assert S3Settings.from_url("s3://my-bucket").prefix == ""


@pytest.mark.parametrize(
    "url", ["my-bucket", "https://my-bucket/x", "s3://", "s3:///x", "s3://k:secret@bucket/x", "s3://bucket?x=1"]
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    """Without repeating what may hold a secret."""
    with pytest.raises(ConfigurationError, match="s3://bucket") as caught:
        S3Settings.from_url(url)
    assert "secret" not in str(caught.value)


def _config(**fields: Any) -> Any:
    async def read() -> Any:
        async with client_for(S3Settings(bucket="bucket", region_name="eu-west-1", **fields)) as client:
            return client.meta.config, client.meta.endpoint_url

    return asyncio.run(read())


def test_the_client_for_aws_is_made_as_the_settings_say() -> None:
    """Time-outs, attempts in `standard` mode, connections; checksums as AWS recommends."""
    config, endpoint = _config(connect_timeout_s=1, read_timeout_s=2, max_attempts=5, max_connections=9)

    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (1, 2, 9)
    assert config.retries == {"mode": "standard", "total_max_attempts": 5}
    assert config.request_checksum_calculation == "when_supported"
    assert endpoint == "https://s3.eu-west-1.amazonaws.com"


def test_the_client_for_a_compatible_store_asks_less_of_it() -> None:
    """Path-style addresses, checksums only when required."""
    config, endpoint = _config(endpoint_url="http://127.0.0.1:9")

    assert config.s3["addressing_style"] == "path"
    assert config.request_checksum_calculation == config.response_checksum_validation == "when_required"
    assert endpoint == "http://127.0.0.1:9"


def test_defaults_are_as_documented() -> None:
    """Connect 3 s, read 10 s, 4 attempts."""
    config, _ = _config()

    assert (config.connect_timeout, config.read_timeout) == (3, 10)
    assert config.retries["total_max_attempts"] == 4


async def test_owner_and_key_are_sent_with_every_request(new_settings: Callable[..., S3Settings]) -> None:
    """`ExpectedBucketOwner` on all, SSE-KMS on all that store."""
    settings = new_settings(expected_bucket_owner="123456789012", kms_key_id="alias/runs")
    async with logged_client(settings) as log, connect(Counter, settings, client=log.client) as checkpointer:
        await checkpointer.commit(RUN, 0, Counter(n=0), [])
        await checkpointer.resume(RUN)
        await checkpointer.load_active(RUN, 0)
        store = S3ObjectStore(log.client, settings)
        await store.copy(checkpointer._run(RUN).state(0), "copy")
        await store.delete(["copy"])

    assert {operation for operation, _ in log.requests} == {
        "PutObject", "GetObject", "HeadObject", "ListObjectsV2", "CopyObject", "DeleteObjects",
    }  # fmt: skip
    for operation, request in log.requests:
        assert request.headers["x-amz-expected-bucket-owner"] == b"123456789012"
        if operation in ("PutObject", "CopyObject"):
            assert request.headers["x-amz-server-side-encryption"] == b"aws:kms"
            assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == b"alias/runs"


async def test_an_injected_client_is_used_and_not_closed(settings: S3Settings, moto_url: str) -> None:
    """It belongs to the caller."""
    async with new_session("x").create_client("s3", endpoint_url=moto_url, region_name="us-east-1") as client:
        async with connect(Counter, settings, client=client) as checkpointer:
            await checkpointer.save(RUN, 0, Counter(n=0))

        listed = await client.list_objects_v2(Bucket=settings.bucket)

    assert listed["KeyCount"] == 1


async def test_explicit_credentials_sign_the_requests(new_settings: Callable[..., S3Settings]) -> None:
    """The token too."""
    settings = new_settings(access_key_id="AKIAEXPLICIT", secret_access_key="s", session_token="token")
    async with logged_client(settings) as log, connect(Counter, settings, client=log.client) as checkpointer:
        await checkpointer.load(RUN)

    [(_, request)] = log.requests
    assert b"AKIAEXPLICIT" in request.headers["Authorization"]
    assert request.headers["X-Amz-Security-Token"] == b"token"


async def test_the_aws_chain_signs_where_no_credentials_are_given(
    settings: S3Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: from the environment."""
    chain = settings.model_copy(update={"access_key_id": None, "secret_access_key": None})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACHAIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    async with logged_client(chain) as log, connect(Counter, chain, client=log.client) as checkpointer:
        await checkpointer.load(RUN)

    [(_, request)] = log.requests
    assert b"AKIACHAIN" in request.headers["Authorization"]


async def test_no_credentials_at_all_is_a_configuration_error(settings: S3Settings) -> None:
    """Not a time-out, not a traceback of the SDK."""
    chain = settings.model_copy(update={"access_key_id": None, "secret_access_key": None})

    async with connect(Counter, chain) as checkpointer:
        with pytest.raises(ConfigurationError, match="credentials"):
            await checkpointer.load(RUN)


async def test_a_profile_that_is_not_there_is_a_configuration_error() -> None:
    """On opening."""
    with pytest.raises(ConfigurationError, match="profile"):
        async with connect(Counter, S3Settings(bucket="bucket", profile_name="no-such-profile")):
            pass


async def test_nobody_listening_is_unavailability(unused_tcp_port: int) -> None:
    """Retryable; says what could not be reached."""
    settings = S3Settings(
        bucket="bucket", endpoint_url=f"http://127.0.0.1:{unused_tcp_port}", access_key_id="x",
        secret_access_key=SecretStr("y"), max_attempts=1,
    )  # fmt: skip
    async with connect(Counter, settings) as checkpointer:
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1") as caught:
            await checkpointer.load(RUN)

    assert caught.value.retryable


def test_a_checkpointer_belongs_to_its_loop(settings: S3Settings) -> None:
    """Used from another one, it says so."""

    async def open_() -> Any:
        connection = connect(Counter, settings)
        return connection, await connection.__aenter__()

    first = asyncio.new_event_loop()
    connection, checkpointer = first.run_until_complete(open_())
    try:
        with pytest.raises(LifecycleError, match="another event loop"):
            asyncio.run(checkpointer.load(RUN))
    finally:
        first.run_until_complete(connection.__aexit__(None, None, None))
        first.close()


async def test_an_error_inside_the_block_comes_through(settings: S3Settings) -> None:
    """And the client is closed all the same."""
    with pytest.raises(ZeroDivisionError):
        async with connect(Counter, settings) as checkpointer:
            raise ZeroDivisionError
    with pytest.raises(CheckpointError):
        await checkpointer.load(RUN)


async def test_metadata_is_read_whatever_case_its_names_come_back_in(settings: S3Settings) -> None:
    """MinIO capitalises them; names of HTTP headers have no case."""
    async with logged_client(settings) as log, connect(Counter, settings, client=log.client) as checkpointer:
        await checkpointer.commit(RUN, 0, Counter(n=1), [])

        def capitalise(parsed: dict[str, Any], **_: Any) -> None:
            parsed["Metadata"] = {name.title(): value for name, value in parsed.get("Metadata", {}).items()}

        log.client.meta.events.register("after-call.s3.GetObject", capitalise)

        assert await checkpointer.load(RUN, 0) == Counter(n=1)


def test_a_connection_that_is_not_open_has_no_other_attributes(settings: S3Settings) -> None:
    """Only what the checkpointer has is answered with advice; the rest is absent, as tools expect."""
    assert not hasattr(connect(Counter, settings), "shape")


@dataclass
class Plain:
    secret: str = "hunter2"


@pytest.mark.parametrize(
    "instance", [{"a": "hunter2"}, {}, Plain(), ["hunter2"], 3, MemoryStore()], ids=lambda given: type(given).__name__
)
def test_an_instance_in_the_place_of_its_type_is_told_as_one(instance: Any) -> None:
    """Story: KeyError: 'type'. Nothing of it is told: it may be a state."""
    with pytest.raises(InvalidArgumentError, match="must be a type, and this is an instance") as told:
        S3Checkpointer(instance, MemoryStore())

    assert "hunter2" not in f"{told.value} {told.value.__cause__}"


@pytest.mark.parametrize("text", [3, None, b"a"], ids=str)
def test_a_prefix_or_namespace_that_is_no_text_is_refused(text: Any) -> None:
    """Before any key is made of it."""
    with pytest.raises(InvalidArgumentError, match="prefix must be text"):
        S3Checkpointer(Counter, MemoryStore(), prefix=text)
    with pytest.raises(InvalidArgumentError, match="namespace must be text"):
        S3Checkpointer(Counter, MemoryStore()).with_namespace(text)


def test_a_plain_with_is_told_what_to_write() -> None:
    """And a setting among the options, where it goes."""
    with pytest.raises(LifecycleError, match="async with"), connect(Counter, store=MemoryStore()):  # type: ignore[attr-defined]
        pass
    with pytest.raises(TypeError, match=r"it is a setting: S3Settings\(\.\.\., prefix=\.\.\.\)"):
        connect(Counter, "my-bucket", prefix="a")  # type: ignore[call-overload]


@pytest.mark.parametrize("call", [RunAdmin, lambda given: lease(given, RUN)], ids=["RunAdmin", "lease"])
def test_something_else_in_the_place_of_a_checkpointer_is_told_what_would_do(call: Any) -> None:
    """A connection that was not entered says how to enter it."""
    for given in (MemoryStore(), SyncS3Checkpointer(Counter, store=MemoryStore()), None):
        with pytest.raises(InvalidArgumentError, match="must be an open S3Checkpointer"):
            call(given)
    with pytest.raises(LifecycleError, match="async with connect"):
        call(connect(Counter, store=MemoryStore()))


async def test_something_else_in_the_place_of_a_graph_is_told_what_would_do() -> None:
    """A compiled graph of LangGraph's, most often."""
    graph: Any = MemoryStore()
    with pytest.raises(InvalidArgumentError, match="must be a Graph of this library"):
        await run_superstep(S3Checkpointer(dict[str, Any], MemoryStore()), graph, RUN)
    with pytest.raises(InvalidArgumentError, match="must be a Graph of this library"):
        sqs_handler(graph, dict[str, Any])
