"""The server of the page: its files, and what they ask for as JSON. It only reads.

Who can reach the port can read what the credentials can read, so it listens on loopback alone, and answers

- only `GET` and `HEAD`;
- only where the `Host` header names loopback: a page elsewhere whose name was made to point here (DNS rebinding) gets
  nothing;
- `/api/` only for the page itself: another site's page cannot make it send requests to the bucket.

The page runs no script but its own files, and loads nothing from elsewhere (Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s3_checkpoint import __version__
from s3_checkpoint._format.session_keys import Transcript, parse_project, parse_transcript, sessions_prefix
from s3_checkpoint.claude.listing import TranscriptListing
from s3_checkpoint.connection import connect
from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    InvalidArgumentError,
    StateDecodingError,
    StoreUnavailableError,
)
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.settings import S3Settings
from s3_checkpoint.web.page_json import page_json
from s3_checkpoint.web.run_pages import RunPages
from s3_checkpoint.web.timeline_page import static_text

if TYPE_CHECKING:
    from s3_checkpoint.web.thread_pages import ThreadPages

HOSTS = ["127.0.0.1", "localhost"]
"""The names that a request may be addressed to."""
VIEWS = ("/", "/runs", "/run", "/threads", "/thread")
"""Every view has an address of its own; the page reads it."""
_STATIC = {"page.css": "text/css", "parts.js": "text/javascript", "app.js": "text/javascript"}
_STATUS = {InvalidArgumentError: 400, AccessDeniedError: 403, StateDecodingError: 422, StoreUnavailableError: 503}
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)

Answer = Callable[[QueryParams], Awaitable[dict[str, Any]]]


class _ReadOnly:
    """Refuses what is not for this page, and puts the headers on what is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        refusal = _refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_with_headers)


def _refusal(request: Request) -> Response | None:
    if request.method not in ("GET", "HEAD"):
        return Response("this page only reads", 405, {"allow": "GET, HEAD"}, "text/plain")
    # Browsers say where a request comes from; a page of another site has no business here.
    if request.url.path.startswith("/api/") and request.headers.get("sec-fetch-site", "none") not in (
        "same-origin",
        "none",
    ):
        return Response("for this page alone", 403, media_type="text/plain")
    return None


def create_app(settings: S3Settings, *, refresh_s: float = 10.0, waiting_on: Collection[str] = ()) -> Starlette:
    """The page for the bucket of `settings`, as an ASGI application. Opened by its lifespan; no request is made then.

    Args:
        settings: Which bucket, under which prefix, with which credentials.
        refresh_s: Seconds between two looks of an open page at what is new; 0: none.
        waiting_on: Nodes at which a run waits for a human.
    """
    pages: list[RunPages] = []
    of_threads: list[ThreadPages] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with connect(Any, settings) as checkpointer:
            pages.append(RunPages(checkpointer, settings.max_state_bytes, waiting_on=waiting_on))
            if all(find_spec(name) is not None for name in ("langgraph", "ormsgpack")):
                of_threads.append(_thread_pages(checkpointer.objects.store, settings))
            yield
            pages.clear()
            of_threads.clear()

    async def place(_: QueryParams) -> dict[str, Any]:
        where = f"s3://{settings.bucket}/{settings.prefix}".rstrip("/")
        return {"place": where, "version": __version__, "refresh_s": refresh_s, "threads": bool(of_threads)}

    def threads() -> ThreadPages:
        if not of_threads:
            raise ConfigurationError("threads need a package: pip install 's3-checkpoint[langgraph]'")
        return of_threads[0]

    async def download(request: Request) -> Response:
        try:
            name, body = await pages[0].download(*_named(request.query_params, "id", "namespace", "step"))
        except CheckpointError as error:
            return _error(error)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(body, headers=headers, media_type="application/json")

    answers: dict[str, Answer] = {
        "place": place,
        "runs": lambda query: pages[0].runs(*_named(query, "search", "after")),
        "runs/activity": lambda query: pages[0].activity(query.getlist("id")),
        "run": lambda query: pages[0].timeline(
            *_named(query, "id", "namespace"),
            after=query.get("after"),
            before=query.get("before"),
            around=query.get("around"),
        ),
        "run/state": lambda query: pages[0].state(*_named(query, "id", "namespace", "step")),
        "run/forks": lambda query: pages[0].forks(query.get("id", "")),
        "threads": lambda query: threads().threads(*_named(query, "search", "after")),
        "threads/activity": lambda query: threads().activity(query.getlist("id")),
        "thread": lambda query: threads().timeline(
            *_named(query, "id", "namespace"), after=query.get("after"), before=query.get("before")
        ),
        "thread/state": lambda query: threads().state(*_named(query, "id", "namespace", "step")),
        "sessions": lambda _: _session_counts(pages[0].store, settings.prefix),
    }
    return Starlette(
        routes=[
            *(Route(path, _file("index.html", "text/html")) for path in VIEWS),
            *(Route(f"/static/{name}", _file(name, kind)) for name, kind in _STATIC.items()),
            *(Route(f"/api/{path}", _json(answer)) for path, answer in answers.items()),
            Route("/api/run/download", download),
        ],
        middleware=[Middleware(_ReadOnly), Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
        lifespan=lifespan,
    )


def _named(query: QueryParams, *names: str) -> list[str]:
    """These parameters of a query; empty where they are left out."""
    return [query.get(name, "") for name in names]


def _thread_pages(store: ObjectStore, settings: S3Settings) -> ThreadPages:
    from s3_checkpoint.langgraph import S3Saver, ThreadAdmin
    from s3_checkpoint.web.thread_pages import ThreadPages

    saver = S3Saver(store, prefix=settings.prefix, max_state_bytes=settings.max_state_bytes)
    return ThreadPages(ThreadAdmin(saver))


async def _session_counts(store: ObjectStore, prefix: str) -> dict[str, Any]:
    """How many sessions of the Claude Agent SDK, and projects, are among their first 1,000 objects. 1 LIST."""
    root = sessions_prefix(prefix)
    page = await store.list(root)
    listings: dict[Transcript, TranscriptListing] = {}
    for listed in page.objects:
        project = parse_project(prefix, root + listed.key[len(root) :].partition("/")[0] + "/")
        transcript = parse_transcript(prefix, project, listed.key) if project is not None else None
        if transcript is not None:
            listings.setdefault(transcript, TranscriptListing(transcript)).add(listed)
    found = [one for one, listing in listings.items() if one.subpath is None and listing.counts]
    return {
        "sessions": len(found),
        "projects": len({one.project_key for one in found}),
        "more": page.next_token is not None,
    }


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(static_text(name), media_type=f"{kind}; charset=utf-8")

    return answer


def _json(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def answered(request: Request) -> Response:
        try:
            return _json_response(await answer(request.query_params), 200)
        except CheckpointError as error:
            return _error(error)

    return answered


def _error(error: CheckpointError) -> Response:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 502)
    return _json_response({"error": str(error), "code": error.code}, status)


def _json_response(value: dict[str, Any], status: int) -> Response:
    return Response(page_json(value), status, media_type="application/json")
