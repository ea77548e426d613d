"""The HTTP session an S3 client sends through: no redirects, no body without a bound, no host but the one asked.

The SDK's own session follows redirects to any host, with the security token, the metadata and the state; reads error
bodies and listings whole, however long; and accepts any host's certificate (no host name is checked; through a proxy
nothing is). This one takes its place by the SDK's option `http_session_cls`. What it raises is what the SDK's own
raises, so that the SDK repeats what it would repeat; a fault of this machine is `ConfigurationError` at once.

Source: `AIOHTTPSession` of aiobotocore 2.25 and 3.10, whose part it plays.
"""

from __future__ import annotations

import asyncio
import io
import re
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.awsrequest import AioAWSResponse
from aiohttp import http_exceptions
from botocore import exceptions as sdk
from botocore.httpsession import ProxyConfiguration, get_cert_path
from multidict import CIMultiDict
from yarl import URL

from s3_checkpoint._s3.error_mapping import NotS3Error, machine_fault, without_userinfo
from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.settings import DRIP, SLOWEST

LISTING_BYTES = 4 * 1024**2
"""The most that is read of an answer that is no object: a page of 1,000 keys of 1,024 bytes, each byte written as
`%XX`, has 3.4 MB; one of ours has 0.3."""
ERROR_BYTES = 256 * 1024
"""The most that is read of an error; S3's have less than 2 KB. A longer one counts as one without a body."""
MARKUP = 100_000
"""The most `<` in an answer: a page of S3's has 30,000. Each element costs the SDK's parser some 200 bytes."""

_ROOT = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?<(?:[A-Za-z][\w.-]*:)?([A-Za-z][\w.-]*)[\s/>]")


class _Sessions(Protocol):
    async def __call__(self, proxy_url: str | None) -> aiohttp.ClientSession: ...


class Answer(AioAWSResponse):  # type: ignore[misc]  # the SDK has no types
    """An answer whose body, unless it is an object's, was read within the bounds."""

    def __init__(self, url: str, status: int, headers: dict[str, str], raw: aiohttp.ClientResponse) -> None:
        super().__init__(url, status, headers, raw)
        self.body: bytes | None = None

    @property
    def content(self) -> Any:
        """Awaitable: the body."""
        return self._body()

    async def _body(self) -> bytes:
        if self.body is None:
            self.body = await _read(self.raw, ERROR_BYTES) or b""
        return self.body


class _Wait:
    """For an answer, from when there is a connection: until then a call may wait for others, which is no fault."""

    __slots__ = ("_seconds", "_timeout", "sent")

    def __init__(self, timeout: asyncio.Timeout, seconds: float) -> None:
        self._timeout: asyncio.Timeout | None = timeout
        self._seconds = seconds
        self.sent = 0
        """Bytes that are to be sent first."""

    def begin(self) -> None:
        """From now on."""
        if self._timeout is not None:
            seconds = self._seconds + self.sent / SLOWEST
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)

    def end(self) -> None:
        """Lets go of the task, which holds its result: a cancelled timer keeps its context until its time has come."""
        self._timeout = None


_waiting: ContextVar[_Wait | None] = ContextVar("s3_checkpoint_waiting", default=None)
_bodies: ContextVar[list[aiohttp.ClientResponse] | None] = ContextVar("s3_checkpoint_bodies", default=None)


class _Connector(aiohttp.TCPConnector):
    """Tells when a request has its connection."""

    async def connect(self, *args: Any, **options: Any) -> Any:
        """See `aiohttp.BaseConnector.connect`."""
        connection = await super().connect(*args, **options)
        wait = _waiting.get()
        if wait is not None:
            wait.begin()
        return connection


class OneHostSession:
    """Made by the SDK, once per client; the arguments are the SDK's."""

    def __init__(
        self,
        verify: Any = True,
        proxies: dict[str, str] | None = None,
        timeout: Any = None,
        max_pool_connections: int = 10,
        socket_options: Any = None,
        client_cert: Any = None,
        proxies_config: dict[str, Any] | None = None,
        connector_args: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self._verify = verify
        self._client_cert = client_cert
        self._proxies = ProxyConfiguration(proxies=proxies, proxies_settings=proxies_config)
        connect, read = timeout if isinstance(timeout, (list, tuple)) else (timeout, timeout)
        self._timeout = aiohttp.ClientTimeout(sock_connect=connect, sock_read=read)
        self._connections = max_pool_connections
        self._connector_args = connector_args or {}
        self._stack = AsyncExitStack()
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}

    async def __aenter__(self) -> OneHostSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections."""
        self._sessions.clear()
        await self._stack.aclose()

    async def send(self, request: Any) -> Answer:
        """One HTTP request, and the answer of the host it was sent to."""
        return await send_once(
            request, self._proxies, partial(self._session, _is_https(request.url)), self._timeout.sock_read
        )

    async def _session(self, to_https: bool, proxy_url: str | None) -> aiohttp.ClientSession:
        session = self._sessions.get((proxy_url, to_https))
        if session is None:
            _check_proxy(proxy_url)
            # Reading the CA bundle takes some 20 ms, and requests without TLS have no use for it.
            believed = self._tls(proxy_url) if to_https or _is_https(proxy_url) else True
            connector = _Connector(limit=self._connections, **{"ssl": believed, **self._connector_args})
            session = self._sessions[proxy_url, to_https] = await self._stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=self._timeout,
                    skip_auto_headers={"CONTENT-TYPE"},
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            )
        return session

    def _tls(self, proxy_url: str | None) -> ssl.SSLContext | bool:
        """What certificates are believed: those of the CA bundle configured, for the host that was asked for."""
        if not self._verify:
            return False
        settings = self._proxies.settings if proxy_url else {}
        bundle, client, to_proxy = get_cert_path(self._verify), self._client_cert, settings.get("proxy_client_cert")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks for a certificate, and for the host's name in it
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cafile=bundle)
            if settings.get("proxy_ca_bundle"):
                context.load_verify_locations(cafile=settings["proxy_ca_bundle"])
            for certificate in (client, to_proxy):
                if certificate:
                    context.load_cert_chain(*([certificate] if isinstance(certificate, str) else certificate))
        except (OSError, TypeError, ValueError) as error:  # `ssl.SSLError` is an `OSError`
            files = ", ".join(str(file) for file in (bundle, client, settings.get("proxy_ca_bundle"), to_proxy) if file)
            raise ConfigurationError(
                "a CA bundle or client certificate cannot be used; correct the file, or the setting that names it "
                "(AWS_CA_BUNDLE, ca_bundle, client_cert, proxies_config)",
                detail=f"{type(error).__name__}: {error} ({files})",
            ) from error
        return context


def _is_https(url: str | None) -> bool:
    return url is not None and url[:6].lower() == "https:"


def _check_proxy(proxy_url: str | None) -> None:
    """Raises `ConfigurationError` for a proxy that speaks another protocol than HTTP, or has no host."""
    if proxy_url is None:
        return
    try:
        host = urlsplit(proxy_url).hostname
    except ValueError:
        host = None
    if not host or proxy_url.count("://") != 1:
        raise ConfigurationError(
            "the proxy must be an http:// or https:// URL; correct HTTPS_PROXY, HTTP_PROXY or `proxies`",
            detail=without_userinfo(proxy_url.removeprefix("http://") if proxy_url.count("://") > 1 else proxy_url),
        )


@contextmanager
def bodies_closed_on_error() -> Iterator[None]:
    """Closes the bodies that began inside the block, where it fails.

    The SDK forgets the body of an answer whose headers it does not understand; its connection would be lent out until
    it is collected as garbage.
    """
    bodies: list[aiohttp.ClientResponse] = []
    token = _bodies.set(bodies)
    try:
        yield
    except BaseException:
        for body in bodies:
            body.close()
        raise
    finally:
        _bodies.reset(token)
        bodies.clear()  # a cancelled timer keeps its context until its time has come


async def send_once(request: Any, proxies: Any, sessions: _Sessions, read_timeout: float | None) -> Answer:
    """Sends one request of the SDK's, follows no redirect, and reads the answer within bounds.

    Raises the SDK's errors for exchanges that failed, `NotS3Error`, and `ConfigurationError` for faults of this
    machine.
    """
    url, proxy = request.url, proxies.proxy_url_for(request.url)
    try:
        return await _send(request, proxy, sessions, read_timeout)
    except (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError, aiohttp.ClientSSLError) as error:
        if fault := machine_fault(error):
            raise fault from error
        if isinstance(error, aiohttp.ClientSSLError):
            raise sdk.SSLError(endpoint_url=url, error=error) from error
        raise sdk.ProxyConnectionError(proxy_url=without_userinfo(str(proxy)), error=error) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, http_exceptions.BadStatusLine) as error:
        raise sdk.ConnectionClosedError(error=error, request=request, endpoint_url=url) from error
    except aiohttp.ServerTimeoutError as error:
        kind = sdk.ConnectTimeoutError if str(error).lower().startswith("connect") else sdk.ReadTimeoutError
        raise kind(endpoint_url=url, error=error) from error
    except TimeoutError as error:
        raise sdk.ReadTimeoutError(endpoint_url=url, error=error) from error
    except (aiohttp.ClientError, OSError, UnicodeDecodeError) as error:
        if fault := machine_fault(error):
            raise fault from error
        if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
            raise sdk.EndpointConnectionError(endpoint_url=url, error=error) from error
        raise sdk.HTTPClientError(error=error) from error


async def _send(request: Any, proxy: str | None, sessions: _Sessions, read_timeout: float | None) -> Answer:
    async with asyncio.timeout(None) as timeout:
        wait = None if read_timeout is None else _Wait(timeout, DRIP * read_timeout)
        token = _waiting.set(wait)
        try:
            return await _exchange(request, proxy, sessions, wait)
        finally:
            _waiting.reset(token)
            if wait is not None:
                wait.end()


async def _exchange(request: Any, proxy: str | None, sessions: _Sessions, wait: _Wait | None) -> Answer:
    body = request.body
    headers = CIMultiDict(
        (name, value.decode() if isinstance(value, bytes) else value) for name, value in request.headers.items()
    )
    headers["Accept-Encoding"] = "identity"  # else the HTTP library asks for compressed bodies
    if wait is not None and body is not None:
        wait.sent = int(headers.get("X-Amz-Decoded-Content-Length") or headers.get("Content-Length") or 0)
    chunked = None
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        del headers["Transfer-Encoding"]
        chunked = True
    if isinstance(body, io.BytesIO):
        body = io.BytesIO(body.getvalue())  # shares the bytes; the HTTP library closes what it has sent
    session = await sessions(proxy)
    response = await session.request(
        request.method,
        URL(request.url, encoded=True),
        headers=headers,
        data=body,
        chunked=chunked,
        proxy=proxy,
        allow_redirects=False,
    )
    try:
        lines = {name.decode().lower(): value.decode() for name, value in response.raw_headers}
        answer = Answer(request.url, response.status, lines, response)
        if response.status >= 300 or not request.stream_output:
            if wait is not None:
                wait.begin()
            await _read_answer(answer, request)
        elif (bodies := _bodies.get()) is not None:
            bodies.append(response)
    except BaseException:
        response.close()
        raise
    return answer


async def _read_answer(answer: Answer, request: Any) -> None:
    """Reads the body of an answer that is no object, and looks whether it can be S3's."""
    failed = answer.status_code >= 300
    body = await _read(answer.raw, ERROR_BYTES if failed else LISTING_BYTES)
    if failed:
        answer.body = body if body is not None and body.count(b"<") <= MARKUP else b""
        return
    if body is None or body.count(b"<") > MARKUP:
        raise NotS3Error(f"it is longer than the {LISTING_BYTES} bytes that S3's answers have at most")
    answer.body = body if body.strip() else b""
    expected = _root_of_answer(request)
    if expected is not None:
        root = _ROOT.match(body)
        found = root[1] if root else b"something else" if answer.body else b""
        # An error in an answer of status 200 is the SDK's to see. Some stores tell of a bucket that was made.
        made = not expected and found in (b"CreateBucketResponse", b"CreateBucketResult")
        if found not in (expected, b"Error") and not made:
            told = "an empty body" if not expected else f"<{expected.decode()}>"
            raise NotS3Error(f"S3 answers {told} here; a proxy, a portal or another server may have answered")


def _root_of_answer(request: Any) -> bytes | None:
    """The root element of S3's answer to this request; empty if its body is empty, None where any will do."""
    query = request.url.partition("?")[2]
    if request.method == "GET" and "list-type=2" in query:
        return b"ListBucketResult"
    if request.method == "POST" and query.partition("&")[0].partition("=")[0] == "delete":
        return b"DeleteResult"
    if request.method == "PUT" and not query:
        return b"CopyObjectResult" if "x-amz-copy-source" in request.headers else b""
    return None


async def _read(response: aiohttp.ClientResponse, bound: int) -> bytes | None:
    """The body, if it has no more than `bound` bytes; else None, and the connection is closed."""
    length = response.content_length
    if length is not None and length <= bound:
        return await response.read()
    read = bytearray()
    while length is None and len(read) <= bound:
        chunk = await response.content.readany()
        if not chunk:
            return bytes(read)
        read += chunk
    response.close()
    return None
