"""What is not ours is text: no name, key, state or server's word acts on a terminal, in a pipe, a log or a page."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.backends import get_backend

from s3_checkpoint import ActiveSnapshot, connect
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.web.page_json import exact
from tests.cli.pages import page
from tests.cli.terminal import Seen, run_on_terminal
from tests.command_line import Cli

NASTY = [
    "\x1b[2J\x1b[1;1Hall is well",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x.example\x1b\\link",
    "\x9b31m",
    "\x9d0;c1\x9c",
    "\u202egnp.exe",
    "\u2066\u2069\u200e\u061c",
    "a\nb\r\tc\x0b\x0c\x85\u2028\u2029",
    "\x00\x08\x7f",
    "[bold red]markup[/bold red][/]",
    "[/red]",
    "[link=http://x.example]x[/link]",
    ":smile:",
    "\ufeff\u200b\u2060\U000e0041",
    "\\",
    '"; <script>',
    "ｗｉｄｅ\u3000é",
]
TEXT = st.lists(st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=3).map(
    "".join
)
ACTED_ON = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def harmful(text: str) -> set[str]:
    """The characters of `text`, lines of a terminal or a pipe, that a terminal would act on."""
    return {char for char in text.replace("\r\n", "\n") if char != "\n" and unicodedata.category(char) in ACTED_ON}


def stored(cli: Cli, texts: list[str]) -> UUID:
    """A run whose every field of text is one of `texts`, in three steps."""
    run_id = uuid4()
    one, other, name = texts[0], texts[1], texts[2] or "n"

    async def commit() -> None:
        async with connect(dict[str, Any], cli.settings()) as checkpointer:
            for step in range(3):
                state = {one: other, "list": [name, {other: [one, step]}], f"{name}{step}": 1}
                tasks = [
                    ActiveSnapshot(node_name=name, payload={one: [other, step]}),
                    ActiveSnapshot(node_name=one or "n"),
                ]
                await checkpointer.commit(run_id, step, state, tasks)
            await checkpointer.with_namespace(one or "n").commit(run_id, 0, {"a": one}, [])

    asyncio.run(commit())
    return run_id


def commands(run: str) -> list[list[str]]:
    return [
        ["show", run],
        ["show", run, "--full"],
        ["active", run],
        ["history", run],
        ["timeline", run, "--no-forks"],
        ["timeline", run, "--no-forks", "--output", "json"],
        ["diff", run, "0", "2"],
        ["steps", run],
    ]


@pytest.mark.parametrize("texts", [["".join(NASTY)] * 3, ["[/red]", "\x1b]0;x\x07", "\u202e\x9b"]], ids=["all", "some"])
def test_no_text_of_a_run_acts_on_a_terminal_or_a_pipe(cli: Cli, texts: list[str]) -> None:
    """Names, payloads, keys and values of states and namespaces reach both escaped, and are never read as markup."""
    _acts_on_nothing(cli, texts)


@pytest.mark.long
@given(texts=st.lists(TEXT, min_size=3, max_size=3))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_text_at_all_of_a_run_acts_on_a_terminal_or_a_pipe(cli: Cli, texts: list[str]) -> None:
    """The same for texts by chance."""
    _acts_on_nothing(cli, texts)


def _acts_on_nothing(cli: Cli, texts: list[str]) -> None:
    run, cli = str(stored(cli, texts)), cli.on("obstore")

    for command in commands(run):
        seen, piped = run_on_terminal(cli, command), cli(*command)

        assert (seen.code, piped.exit_code) == (0, 0), (command, seen.text, piped.stderr, piped.exception)
        assert not harmful(seen.text), command
        assert not harmful(piped.stdout + piped.stderr), command
    assert json.loads(cli("show", run).stdout)["state"]["list"][0] == (texts[2] or "n")
    assert json.loads(cli("show", run, "--output", "jsonl").stdout)["active"][0]["node_name"] == (texts[2] or "n")


@given(texts=st.lists(TEXT, min_size=2, max_size=2))
@settings(max_examples=50, deadline=None)
def test_no_text_of_a_run_is_raw_in_a_page(texts: list[str]) -> None:
    """The file is ASCII but for the page's own words; the data reads back as it was, what looks like a mark marked."""
    one, other = texts
    step: dict[str, Any] = {
        "run_id": str(UUID(int=1)),
        "step": 0,
        "last_modified": "2026-01-01T00:00:00+00:00",
        "size": 1,
        "schema_version": one,
        "write_id": other,
        "committed": True,
        "encoding": None,
        "origin": None,
        "active": [{"node_name": one, "payload": {other: one}}],
        "state": {one: [other]},
        "changes": [{"path": one, "change": "added", "after": other}],
        "missing_before": None,
        "pause_s": 0.0,
    }
    document: Any = {"run_id": "r", "namespace": one, "bucket": other, "steps": [step], "forks": []}

    text = page(document)
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]

    assert not harmful(text)
    assert text.count("<script") == 2
    read = json.loads(data)["steps"][0]
    assert read["active"] == [{"node_name": one, "payload": exact({other: one})}]
    assert read["state"] == exact(step["state"])


def test_colours_are_the_only_escape_sequences(cli: Cli) -> None:
    """On a terminal that has colours, what rich writes is all that reaches it."""
    run, cli = str(stored(cli, ["".join(NASTY)] * 3)), cli.on("obstore")

    for command in commands(run):
        seen = run_on_terminal(cli, command, TERM="xterm-256color", NO_COLOR="")
        text = seen.text
        assert seen.code == 0
        for sequence in ("\x1b[2J", "\x1b]0;", "\x1b]8;", "\x9b", "\x9d", "\u202e", "\x07"):
            assert sequence not in text, command


def as_header(text: str) -> str:
    """What a server that sends headers in Latin-1 must be given for a client that reads them as UTF-8."""
    return text.encode().decode("latin-1")


def test_metadata_and_foreign_keys_reach_a_terminal_escaped(cli: Cli) -> None:
    """A schema version, a write id, a format and keys that another program wrote."""
    run, odd = UUID(int=7), as_header("9\x9b31m\x85\u202e")
    keys, backend = RunKeys("", run), get_backend("s3")["123456789012"]["aws"]
    digest = hashlib.sha256(b"{}").hexdigest()
    ours = {"format": "1", "schema-version": "1", "digest": digest, "write-id": "w"}
    for step, more in enumerate([{"schema-version": odd, "write-id": odd}, {"format": odd}, {"active": odd}, {}]):
        written = backend.put_object(cli.bucket, keys.state(step), b"{}")
        written.set_metadata({f"x-amz-meta-{name}": value for name, value in (ours | more).items()})
    for key in (
        f"{keys.run}\x9b31m\u202e",
        f"{keys.run}namespaces/\x9b31m/steps/x",
        "runs/\x9b/steps/1",
        f"{keys.steps}\x9b",
    ):
        backend.put_object(cli.bucket, key, b"{}")

    all_commands = [
        *commands(str(run)),
        ["show", str(run), "--step", "0"],
        ["runs", "--long"],
        ["usage"],
        ["delete", str(run), "-y"],
    ]
    for command in all_commands:
        seen = run_on_terminal(cli, command)

        assert not harmful(seen.text), command
        assert seen.code in (0, ExitCode.UNREADABLE), seen.text


class Hostile(BaseHTTPRequestHandler):
    """Answers every request with an error whose words are not for a terminal."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server: Any = self.server
        body = f"<Error><Code>{server.word}</Code><Message>{server.word}</Message></Error>".encode()
        self.send_response_only(server.status, as_header("no\x9b31m"))
        self.send_header("x-amz-request-id", as_header("\x9b31m\x85"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - names that `http.server` looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hostile_server() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


WORDS = {
    "markup": "\x9b31m\u202e\u2066[/red]",
    "in XML": "&#155;&#x202e;&#13;&#10;&#133;",
    "no XML": "\x1b]0;x\x07",
}


def each_once(word: str, status: int) -> Any:
    """Each word and each status once, and every pair in the long run: what is told of either depends on no other."""
    usual = {(name, status) for name, status in zip([*WORDS, "in XML"], [400, 403, 409, 503], strict=True)}
    marks = () if (word, status) in usual else pytest.mark.long
    return pytest.param(status, WORDS[word], marks=marks, id=f"{status} {word}")


@pytest.mark.parametrize(
    ("status", "word"), [each_once(word, status) for word in WORDS for status in (400, 403, 409, 503)]
)
def test_a_server_s_words_reach_a_terminal_and_a_log_escaped(
    cli: Cli, hostile_server: Any, status: int, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Codes, messages, reasons and request ids, in XML that parses and in XML that does not; `doctor` included."""
    hostile_server.status, hostile_server.word = status, word
    url = f"http://127.0.0.1:{hostile_server.server_port}"

    with caplog.at_level(logging.DEBUG, logger="s3_checkpoint"):
        for command in (["runs"], ["show", str(UUID(int=3))], ["doctor"]):
            seen = run_on_terminal(cli, command, S3_CHECKPOINT_ENDPOINT_URL=url)

            assert seen.code not in (0, 1) or command == ["doctor"]
            assert not harmful(seen.text), command
            assert "Traceback" not in seen.text
    assert caplog.records
    for record in caplog.records:
        own = [str(value) for name, value in vars(record).items() if name.startswith("s3_")]
        assert not harmful(record.getMessage() + "".join(own))


@pytest.mark.parametrize("word", ["[/red]", "\x1b]0;x\x07", "\u202e\x9b", "\udcff", "a\nb", ":smile:[bold]"])
@pytest.mark.parametrize("place", ["run", "step", "prefix", "namespace", "command", "bucket", "html"])
def test_arguments_are_text_too(cli: Cli, word: str, place: str, tmp_path: Path) -> None:
    """What comes back of the command line itself is escaped, and ends in a message, not in a traceback."""
    run = str(UUID(int=5))
    arguments = {
        "run": ["show", word],
        "step": ["show", run, "--step", word],
        "prefix": ["runs", "--prefix", word],
        "namespace": ["show", run, "--namespace", word],
        "command": [word],
        "bucket": ["runs", "--bucket", word],
        "html": ["timeline", run, "--html", str(tmp_path / "no" / word)],
    }[place]

    seen: Seen = run_on_terminal(cli, arguments)
    piped = cli(*arguments)

    assert not harmful(seen.text)
    assert not harmful(piped.stdout + piped.stderr)
    assert piped.exception is None or isinstance(piped.exception, SystemExit), piped.exception
