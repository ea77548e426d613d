"""Faults of this machine are `ConfigurationError` with the cause; what passes by itself is not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from aiobotocore.session import AioSession
from botocore import exceptions as sdk
from botocore.exceptions import ClientError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from s3_checkpoint import ConfigurationError, S3Settings, StoreUnavailableError, connect
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.error_mapping import PROBLEMS, described, machine_fault
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import StoredObject
from tests.certificates import Authority
from tests.conftest import TRANSPORTS
from tests.s3.hostile_s3 import CALLS, PLAIN, HostileS3, answer, hostile_s3, settings_for, sound, store_at
from tests.s3.sdk_requests import logged_client
from tests.states import RUN, Counter

PASSING = {
    "BotoCoreError",
    "AwsChunkedWrapperError",
    "CapacityNotAvailableError",
    "ChecksumError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "EndpointConnectionError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteReadError",
    "MetadataRetrievalError",
    "ProxyConnectionError",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "SSLError",
}
"""Error classes of the SDK that say nothing of this machine (of the last, only what it wraps tells)."""
NEVER_RAISED = {
    "InvalidExpressionError",
    "OperationNotPageableError",
    "PaginationError",
    "StubAssertionError",
    "StubResponseError",
    "UnStubbedResponseError",
    "UnknownClientMethodError",
    "UnknownServiceStyle",
    "UnseekableStreamError",
    "WaiterConfigError",
    "WaiterError",
}
"""Of parts of the SDK that are not used here."""


def _classes() -> list[Any]:
    found = [value for value in vars(sdk).values() if isinstance(value, type)]
    return [cls for cls in found if issubclass(cls, sdk.BotoCoreError)]


class _Words(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "x"


def _made(cls: Any) -> Exception:
    error: Exception = cls.__new__(cls)
    Exception.__init__(error, cls.fmt.format_map(_Words()))
    return error


def test_every_error_class_of_the_sdk_is_in_one_of_the_tables() -> None:
    """A new one is to be read, and put where it belongs."""
    for cls in _classes():
        fault = machine_fault(_made(cls))
        passing = cls.__name__ in PASSING | NEVER_RAISED
        assert passing == (fault is None), cls.__name__
        if fault is not None:
            assert fault.problem in PROBLEMS.values()
            assert cls.__name__ in fault.detail
    assert len(_classes()) > 70


CERTIFICATE_REFUSED = ssl.SSLCertVerificationError(1, "certificate verify failed")


def _tls(library: str, reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[{library}: {reason}] words")
    error.library, error.reason = library, reason
    return error


def _proxy_says(status: int) -> aiohttp.ClientHttpProxyError:
    asked = aiohttp.RequestInfo(URL("https://x"), "CONNECT", CIMultiDictProxy(CIMultiDict()), URL("https://x"))
    return aiohttp.ClientHttpProxyError(asked, (), status=status, message="words")


OF_THE_MACHINE: list[BaseException] = [
    sdk.HTTPClientError(error=FileNotFoundError(2, "No such file or directory")),
    sdk.HTTPClientError(error=PermissionError(errno.EACCES, "Permission denied", "/etc/ca.pem")),
    sdk.HTTPClientError(error=_tls("X509", "NO_CERTIFICATE_OR_CRL_FOUND")),
    sdk.HTTPClientError(error=_tls("X509", "KEY_VALUES_MISMATCH")),
    sdk.HTTPClientError(error=_tls("PEM", "NO_START_LINE")),
    sdk.HTTPClientError(error=aiohttp.InvalidURL("http://[")),
    sdk.SSLError(endpoint_url="https://x", error=CERTIFICATE_REFUSED),
    sdk.SSLError(endpoint_url="https://x", error=_tls("SSL", "WRONG_VERSION_NUMBER")),
    sdk.SSLError(endpoint_url="https://x", error=_tls("SSL", "TLSV13_ALERT_CERTIFICATE_REQUIRED")),
    sdk.ProxyConnectionError(proxy_url="http://p", error=_proxy_says(407)),
    sdk.ProxyConnectionError(proxy_url="http://p", error=_proxy_says(403)),
    sdk.EndpointConnectionError(endpoint_url="https://x", error=OSError(errno.EPERM, "not permitted")),
    sdk.EndpointConnectionError(endpoint_url="https://x", error=OSError(errno.EAFNOSUPPORT, "no such family")),
    IsADirectoryError(errno.EISDIR, "Is a directory"),
    NotADirectoryError(errno.ENOTDIR, "Not a directory", "/etc/ca.pem/x"),
    ModuleNotFoundError("No module named 'awscrt'", name="awscrt.auth"),
]
OF_THE_NETWORK: list[BaseException] = [
    sdk.ProxyConnectionError(proxy_url="http://p", error=_proxy_says(502)),
    sdk.ProxyConnectionError(proxy_url="http://p", error=_proxy_says(503)),
    sdk.ProxyConnectionError(proxy_url="http://p", error=_proxy_says(504)),
    sdk.ProxyConnectionError(proxy_url="http://p", error=_proxy_says(429)),
    sdk.ProxyConnectionError(proxy_url="http://p", error=OSError(errno.ECONNREFUSED, "refused")),
    sdk.SSLError(endpoint_url="https://x", error=_tls("SSL", "UNEXPECTED_EOF_WHILE_READING")),
    sdk.SSLError(endpoint_url="https://x", error=ConnectionResetError(errno.ECONNRESET, "reset")),
    sdk.EndpointConnectionError(endpoint_url="https://x", error=OSError(errno.ENETUNREACH, "unreachable")),
    sdk.EndpointConnectionError(endpoint_url="https://x", error=OSError(-3, "Temporary failure in name resolution")),
    sdk.HTTPClientError(error=OSError(errno.EMFILE, "Too many open files")),
    sdk.ConnectTimeoutError(endpoint_url="https://x", error=TimeoutError()),
    TimeoutError("slow"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
]


async def test_each_kind_is_told_as_what_it_is() -> None:
    """However deep the SDK has wrapped it; the cause is chained, and named."""
    settings = settings_for("http://127.0.0.1:9")
    raised: BaseException = AssertionError()

    def fail(**_: Any) -> None:
        raise raised

    async with logged_client(settings) as log:
        store = S3ObjectStore(log.client, settings)
        log.client.meta.events.register("before-send.s3", fail)
        for raised in OF_THE_MACHINE:
            with pytest.raises(ConfigurationError) as caught:
                await store.put("k", b"", PLAIN, mode="create")
            assert (caught.value.bucket, caught.value.retryable) == ("bucket", False)
            assert caught.value.detail.startswith(type(raised).__name__)
            assert caught.value.__cause__ is raised
        for raised in OF_THE_NETWORK:  # noqa: B007 - `fail` raises it
            with pytest.raises(StoreUnavailableError) as unavailable:
                await store.put("k", b"", PLAIN, mode="create")
            assert unavailable.value.outcome_unknown


@pytest.mark.parametrize(
    ("operation", "code", "status", "told"),
    [
        ("AssumeRole", "AccessDenied", 403, ConfigurationError),
        ("AssumeRoleWithWebIdentity", "InvalidIdentityToken", 400, ConfigurationError),
        ("GetRoleCredentials", "UnauthorizedException", 401, ConfigurationError),
        ("AssumeRole", "ServiceUnavailable", 503, StoreUnavailableError),
        ("AssumeRole", "Throttling", 400, StoreUnavailableError),
    ],
)
async def test_a_refusal_of_credentials_is_not_one_of_the_store(
    operation: str, code: str, status: int, told: type[Exception]
) -> None:
    """Story: a role that could not be assumed read as "grant s3:PutObject"."""
    settings = settings_for("http://127.0.0.1:9")
    answer_ = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}

    def fail(**_: Any) -> None:
        raise ClientError(answer_, operation)

    async with logged_client(settings) as log:
        log.client.meta.events.register("before-send.s3", fail)
        with pytest.raises(told, match=operation):
            await S3ObjectStore(log.client, settings).put("k", b"", PLAIN, mode="create")


async def test_a_multi_region_access_point_names_the_package_it_needs() -> None:
    """Story: without `botocore[crt]` it was "calling again is safe"."""
    settings = S3Settings.model_validate(
        {
            "bucket": "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
            "region_name": "us-east-1",
            "access_key_id": "a",
            "secret_access_key": "b",
        }
    )
    async with connect(Counter, settings) as checkpointer:
        for call in (checkpointer.load(RUN, 0), checkpointer.save(RUN, 0, Counter(n=0)), checkpointer.list(RUN)):
            with pytest.raises(ConfigurationError, match=r"botocore\[crt\]|awscrt|CRT"):
                await call


@asynccontextmanager
async def _handed_in(url: str, **more: Any) -> AsyncIterator[S3ObjectStore]:
    session: Any = AioSession()
    session.set_credentials("x", "y")
    async with session.create_client("s3", region_name="us-east-1", endpoint_url=url, **more) as client:
        yield S3ObjectStore(client, settings_for(url))


@pytest.mark.parametrize("ours", [True, False], ids=["a client made here", "a client handed in"])
@pytest.mark.parametrize("kind", ["missing", "no certificate", "a directory", "empty"])
async def test_a_ca_bundle_that_is_none_is_a_fault_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ours: bool
) -> None:
    """Story: it was "calling again is safe", after four attempts."""
    bundle = tmp_path / "ca.pem"
    if kind == "a directory":
        bundle.mkdir()
    elif kind != "missing":
        bundle.write_text("no certificate" if kind == "no certificate" else "")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))

    async with store_at("https://127.0.0.1:9") if ours else _handed_in("https://127.0.0.1:9") as store:
        with pytest.raises(ConfigurationError, match=r"CA bundle|file") as caught:
            await store.put("k", b"", PLAIN, mode="create")

    assert not ours or str(bundle) in caught.value.detail


async def test_plain_http_reads_no_ca_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first request without TLS does not wait for certificates that it has no use for."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "missing"))

    async with hostile_s3() as hostile, store_at(hostile.url) as store:
        hostile.answer = sound("get")
        assert isinstance(await store.get("k", max_bytes=10), StoredObject)


@pytest.mark.parametrize("kind", ["known", "unknown"])
async def test_a_proxy_reached_by_tls_is_believed_by_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also where the store itself is asked by plain http."""
    for name in ("known", "unknown"):
        (tmp_path / name).mkdir()
    issuers = {name: Authority(tmp_path / name) for name in ("known", "unknown")}
    monkeypatch.setenv("AWS_CA_BUNDLE", str(issuers["known"].bundle))
    async with hostile_s3() as proxy, _over_tls(proxy, issuers[kind].server("127.0.0.1")) as port:
        proxy.answer = sound("get")
        monkeypatch.setenv("HTTP_PROXY", f"https://127.0.0.1:{port}")
        async with store_at("http://127.0.0.1:9") as store:
            if kind == "known":
                assert isinstance(await store.get("k", max_bytes=10), StoredObject)
            else:
                with pytest.raises(ConfigurationError, match="certificate"):
                    await store.get("k", max_bytes=10)

    assert len(proxy.asked) == (kind == "known")


@asynccontextmanager
async def _over_tls(hostile: HostileS3, context: ssl.SSLContext) -> AsyncIterator[int]:
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("says", "told"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", ConfigurationError),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ConfigurationError),
        (b"", StoreUnavailableError),
    ],
    ids=["http", "another protocol", "nothing"],
)
async def test_a_server_that_does_not_speak_tls_is_told_as_such(
    says: bytes, told: type[Exception], transport: Literal["aiobotocore", "obstore"]
) -> None:
    """Story: https in the place of http was "internal: the SDK failed inside". One that hangs up may be back soon."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(65536)
            writer.write(says)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_store(settings_for(url, transport=transport)) as store:
        for call in ("get", "list", "put create"):
            with pytest.raises(told) as caught:
                await CALLS[call](store)
            assert told is StoreUnavailableError or "http or https" in str(caught.value)
            assert "internal" not in str(caught.value)


@asynccontextmanager
async def _proxy(says: bytes) -> AsyncIterator[str]:
    """A proxy; without words of its own it connects as it is asked."""
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if says:
            writer.write(says)
            await writer.drain()
            writer.close()
            return
        host, _, port = head.split()[1].decode().partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        pumps.update(asyncio.ensure_future(pump(*pair)) for pair in ((reader, back), (there, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://user:hunter2@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@pytest.mark.parametrize("proxied", [False, True], ids=["straight", "through a proxy"])
async def test_a_certificate_is_believed_only_for_its_host_and_of_a_known_issuer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxied: bool
) -> None:
    """Story: the SDK took any host's certificate, and through a proxy any certificate at all."""
    for name in ("known", "unknown"):
        (tmp_path / name).mkdir()
    known, unknown = Authority(tmp_path / "known"), Authority(tmp_path / "unknown")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(known.bundle))
    servers = {
        "right": known.server("127.0.0.1"),
        "another host's": known.server("other.example"),
        "another issuer's": unknown.server("127.0.0.1"),
    }
    async with hostile_s3() as hostile, _proxy(b"") as proxy:
        if proxied:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
        hostile.answer = sound("get")
        for kind, context in servers.items():
            async with _over_tls(hostile, context) as port, store_at(f"https://127.0.0.1:{port}") as store:
                if kind == "right":
                    assert isinstance(await store.get("k", max_bytes=10), StoredObject)
                    continue
                with pytest.raises(ConfigurationError, match="certificate"):
                    await store.get("k", max_bytes=10)

    assert len(hostile.asked) == 1


@pytest.mark.parametrize("ours", [True, False], ids=["a client made here", "a client handed in"])
@pytest.mark.parametrize(
    ("status", "told"),
    [(502, None), (503, None), (504, None), (500, None), (429, None), (407, "proxy"), (403, "proxy"), (405, "proxy")],
)
async def test_answers_of_a_proxy_to_connect_are_mapped(
    monkeypatch: pytest.MonkeyPatch, status: int, told: str | None, ours: bool
) -> None:
    """It cannot reach the store: that passes. It will not: that is its configuration, or ours. No password is told."""
    async with _proxy(b"HTTP/1.1 %d Words\r\nContent-Length: 0\r\n\r\n" % status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        async with store_at("https://127.0.0.1:9", ours=ours) as store:
            with pytest.raises(ConfigurationError if told else StoreUnavailableError, match=told) as caught:
                await store.get("k", max_bytes=10)

    assert "hunter2" not in str(caught.value)


async def test_a_407_of_a_proxy_for_plain_http_is_configuration() -> None:
    """There, it is the answer to the request itself."""
    async with hostile_s3() as hostile, store_at(hostile.url) as store:
        hostile.answer = answer(407)
        with pytest.raises(ConfigurationError, match="proxy"):
            await store.get("k", max_bytes=10)


@pytest.mark.parametrize("proxy", ["http://[::", "socks5://127.0.0.1:1080", "http://127.0.0.1:port", "http://"])
async def test_a_proxy_that_cannot_be_one_is_configuration(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Its address is no URL, or it speaks another protocol."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigurationError, match=r"(?i)prox|address|URL"):
        async with store_at("https://127.0.0.1:9") as store:
            await store.get("k", max_bytes=10)


def _profile(text: str) -> Callable[[Path], str]:
    return lambda _: "[default]\nregion = eu-west-1\naws_access_key_id = a\naws_secret_access_key = b\n" + text


def _no_request(**_: Any) -> None:
    raise AssertionError("a request is sent")


FILES: dict[str, Callable[[Path], str]] = {
    "no configuration file at all": lambda _: "\0\n[[[",
    "half of the credentials": lambda _: "[default]\nregion = eu-west-1\naws_access_key_id = a\n",
    "a region that is none": lambda _: _profile("")(Path()).replace("eu-west-1", "eu_west/1"),
    "an unknown addressing style": _profile("s3 =\n  addressing_style = sideways\n"),
    "s3 that is no section": _profile("s3 = path\n"),
    "an unknown defaults mode": _profile("defaults_mode = often\n"),
    "an unknown checksum mode": _profile("request_checksum_calculation = now_and_then\n"),
    "an endpoint that is none": _profile("endpoint_url = nowhere\n"),
    "a source profile that is not there": lambda _: (
        "[default]\nregion = eu-west-1\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = nobody\n"
    ),
    "a process for credentials that fails": lambda _: (
        "[default]\nregion = eu-west-1\ncredential_process = /bin/false\n"
    ),
    "a process for credentials that is not there": lambda _: (
        "[default]\nregion = eu-west-1\ncredential_process = /no/such/program\n"
    ),
}


@pytest.mark.parametrize("kind", FILES)
async def test_faults_of_the_aws_configuration_are_configuration_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """On opening, or at the first request: never "calling again is safe", never an error of the SDK."""
    config = tmp_path / "config"
    config.write_text(FILES[kind](tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    settings = S3Settings(bucket="bucket")

    async def write() -> None:
        async with client_for(settings) as client:
            client.meta.events.register("before-send.s3", _no_request)
            await S3ObjectStore(client, settings).put("k", b"", PLAIN, mode="create")

    with pytest.raises(ConfigurationError):
        await write()


async def test_a_configuration_that_may_not_be_read_is_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A directory in its place, say."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path))
    with pytest.raises(ConfigurationError):
        async with connect(Counter, S3Settings(bucket="bucket")) as checkpointer:
            await checkpointer.load(RUN)


def test_errors_hold_no_password() -> None:
    """Of a proxy or an endpoint, in whatever text."""
    error = ValueError("cannot connect to http://user:hunter2@proxy:3128/ or https://hunter2@x")

    assert "hunter2" not in described(error)
    assert "proxy:3128" in described(error)
