"""`thread import`: from databases of LangGraph's own savers, without the application's types."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.langgraph import S3Saver
from tests.benchmarks.postgres_server import postgres_url, server_available
from tests.command_line import Cli
from tests.langgraph.counting import at, put
from tests.langgraph.graphs import asking, chat, delta
from tests.langgraph.test_thread_admin import Tool

KEY = "0123456789abcdef"


def fill(saver: Any) -> None:
    graph = chat().compile(checkpointer=saver)
    for text in ("hi", "bye"):
        graph.invoke({"messages": [HumanMessage(text, id=text)]}, at("chat"))
    asking().compile(checkpointer=saver).invoke({"trail": ["go"]}, at("support/case 42"))
    delta(every=3).compile(checkpointer=saver).invoke({}, at("delta") | {"recursion_limit": 50})
    put(saver, at("typed"), {"tool": Tool("hammer", 2.5)})


@pytest.fixture
def database(tmp_path: Path) -> Path:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    path = tmp_path / "threads of mine.sqlite"
    with sqlite.SqliteSaver.from_conn_string(str(path)) as saver:
        fill(saver)
    return path


def test_import_from_sqlite_copies_everything_once(cli: Cli, database: Path) -> None:
    """A dry run counts; a second import finds all of it there; the graphs continue."""
    url = f"sqlite:///{database}"
    planned = cli.json("thread", "import", "--from", url, "--dry-run")
    assert (planned["threads"], planned["dry_run"]) == (4, True)
    assert cli.json("threads") == []

    copied = cli.json("thread", "import", "--from", url)
    again = cli.json("thread", "import", "--from", url)

    assert {**copied, "dry_run": True} == planned
    assert again["there_before"] == again["checkpoints"] == copied["checkpoints"]
    waiting = cli.json("threads", "--status", "interrupted")
    assert [(row["thread_id"], row["waits_for"]) for row in waiting] == [("support/case 42", ["first?"])]
    with S3Saver(cli.settings()) as saver:
        assert saver.get_tuple(at("typed")).checkpoint["channel_values"] == {"tool": Tool("hammer", 2.5)}  # type: ignore[union-attr]
        state = chat().compile(checkpointer=saver).get_state(at("chat"))
        log = delta(every=3).compile(checkpointer=saver).get_state(at("delta")).values["log"]
    assert [message.content for message in state.values["messages"]] == ["hi", "answer 1", "bye", "answer 3"]
    assert len(log) == 12


def test_import_says_on_a_terminal_what_it_copied(cli: Cli, database: Path) -> None:
    done = cli("thread", "import", "--from", f"sqlite:///{database}", "--thread", "chat", "--output", "table")

    assert done.stdout.startswith("copied 1 threads: 6 checkpoints in 1 namespaces, ")
    assert [row["thread_id"] for row in cli.json("threads")] == ["chat"]


def test_import_leaves_the_database_as_it_is(cli: Cli, database: Path) -> None:
    before = database.read_bytes()

    assert cli("thread", "import", "--from", f"sqlite:///{database}").exit_code == 0

    assert database.read_bytes() == before


def test_import_of_an_encrypted_database_needs_the_key(cli: Cli, tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY.encode())
    path = tmp_path / "encrypted.sqlite"
    with sqlite.SqliteSaver.from_conn_string(str(path)) as saver:
        saver.serde = serde
        asking().compile(checkpointer=saver).invoke({"trail": ["hush"]}, at("t"))
    arguments = ("thread", "import", "--from", f"sqlite:///{path}")

    without = cli(*arguments)
    no_key = cli(*arguments, "--encrypted")
    copied = cli(*arguments, "--encrypted", LANGGRAPH_AES_KEY=KEY)

    assert (without.exit_code, no_key.exit_code, copied.exit_code) == (ExitCode.UNREADABLE, ExitCode.USAGE, 0)
    assert "--encrypted" in without.stderr
    assert cli.json("thread", "show", "t")["encrypted"]
    with S3Saver(cli.settings(), serde=serde) as saver:
        assert asking().compile(checkpointer=saver).get_state(at("t")).values == {"trail": ["hush"]}


@pytest.mark.parametrize(
    ("url", "code", "hint"),
    [
        ("sqlite:///nothing.sqlite", ExitCode.NOT_FOUND, "there is no file"),
        ("sqlite://host/x", ExitCode.USAGE, "sqlite:////PATH"),
        ("mysql://x/y", ExitCode.USAGE, "sqlite:///PATH or postgresql://"),
    ],
)
def test_import_from_what_is_no_database_says_what_to_give(cli: Cli, url: str, code: ExitCode, hint: str) -> None:
    result = cli("thread", "import", "--from", url)

    assert (result.exit_code, result.stdout) == (code, "")
    assert hint in result.stderr


def test_import_from_a_server_that_is_away_says_so_or_names_the_package_it_needs(cli: Cli) -> None:
    result = cli("thread", "import", "--from", "postgresql://user@127.0.0.1:9/none")

    code, hint = ExitCode.UNAVAILABLE, "does not answer"
    if find_spec("psycopg") is None or find_spec("langgraph.checkpoint.postgres") is None:
        code, hint = ExitCode.CONFIGURATION, "pip install"
    assert (result.exit_code, result.stdout) == (code, "")
    assert hint in result.stderr


def test_import_from_another_sqlite_file_says_so(cli: Cli, tmp_path: Path) -> None:
    """And makes no tables in it."""
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    result = cli("thread", "import", "--from", f"sqlite:///{path}")

    assert (result.exit_code, result.stdout) == (ExitCode.NO, "")
    assert "holds no threads of LangGraph" in result.stderr
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    if not server_available():
        pytest.skip("no Postgres server: initdb and pg_ctl are not on the path")
    with TemporaryDirectory() as scratch, postgres_url(Path(scratch)) as url:
        yield url


def test_import_from_postgres_copies_everything(cli: Cli, postgres: str) -> None:
    saver = pytest.importorskip("langgraph.checkpoint.postgres").PostgresSaver
    with saver.from_conn_string(postgres) as source:
        source.setup()
        fill(source)

    copied = cli.json("thread", "import", "--from", postgres)

    assert copied["threads"] == 4
    assert cli.json("thread", "import", "--from", postgres)["there_before"] == copied["checkpoints"]
    assert cli.json("thread", "show", "support")["status"] == "interrupted"
