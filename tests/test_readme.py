"""README and the site are true: their programs run, their tables say what the code says, their links lead somewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from s3_checkpoint import S3Settings, errors
from s3_checkpoint._format import keys, memory_keys, metadata, session_keys, thread_keys
from s3_checkpoint.cli.app import build
from s3_checkpoint.cli.exit_codes import ExitCode
from tests.warm_python import WarmPython, warm_python

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "infra" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
LIBRARIES = (
    *("s3_checkpoint", "s3_checkpoint._s3.store", "s3_checkpoint._s3.client", "s3_checkpoint.langgraph"),
    *("langgraph.graph", "s3_checkpoint.testing", "boto3", "opentelemetry.sdk", "claude_agent_sdk"),
)
FENCE = re.compile(r"^```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; `output` is the text block right behind it, which says what the program prints."""

    page: Path
    line: int
    language: str
    text: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        found = list(FENCE.finditer(text))
        for index, match in enumerate(found):
            after = found[index + 1] if index + 1 < len(found) else None
            shows_output = after and after["language"] == "text" and not text[match.end() : after.start()].strip()
            line = text.count("\n", 0, match.start()) + 1
            yield Block(page, line, match["language"], match["text"], after["text"] if after and shows_output else None)


BLOCKS = list(_blocks())
PYTHON = [block for block in BLOCKS if block.language == "python"]


def _programs() -> Iterator[tuple[Block, str]]:
    """Each program with its text; one that `# continues` has the text of those before it on the page in front."""
    before: dict[Path, str] = {}
    for block in PYTHON:
        if block.text.startswith("# fragment"):
            continue
        text = block.text
        if text.startswith("# continues"):
            text = before[block.page] + text
        before[block.page] = text
        yield block, text


PROGRAMS = list(_programs())


@pytest.fixture
def environment(settings: S3Settings) -> dict[str, str]:
    """What a reader has set: a bucket and credentials."""
    return os.environ | {
        "S3_CHECKPOINT_BUCKET": settings.bucket,
        "S3_CHECKPOINT_ENDPOINT_URL": settings.endpoint_url or "",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": str(ROOT),
    }


Run = Callable[[str], str]


@pytest.fixture(scope="module")
def python() -> Iterator[WarmPython]:
    """What programs of the pages import, once for all of them."""
    with warm_python(*LIBRARIES) as python:
        yield python


@pytest.fixture
def run(python: WarmPython, environment: dict[str, str], tmp_path: Path) -> Run:
    """Runs a program as a file of its own, in a process of its own; gives what it prints."""

    def run(text: str) -> str:
        script = tmp_path / "program.py"
        script.write_text(text)
        done = python.run(script, environment, tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(("block", "text"), PROGRAMS, ids=[str(block) for block, _ in PROGRAMS])
def test_programs_run_and_print_what_the_page_says(block: Block, text: str, run: Run) -> None:
    """Each Python block is a program, or begins with `# fragment`; a text block right behind it is what it prints."""
    printed = run(text)

    assert block.output is None or printed == block.output


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_blocks_are_python(block: Block) -> None:
    """Fragments too; `await` outside a function is for readers who have a loop."""
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_quick_start_continues_where_it_was(run: Run) -> None:
    """Twice, each time in a process of its own."""
    text = next(block.text for block in PYTHON if block.page == README and "connect(Research)" in block.text)

    printed = [run(text) for _ in range(2)]

    assert printed == [
        "0 question='Why is the sky blue?' notes=['note 0']\n",
        "1 question='Why is the sky blue?' notes=['note 0', 'note 1']\n",
    ]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=str)
def test_json_blocks_are_json(block: Block) -> None:
    """As a reader would paste them."""
    json.loads(block.text)


def _commands(name: str) -> Iterator[tuple[Block, str]]:
    for block in BLOCKS:
        if block.language in ("sh", "console"):
            lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]
            if block.language == "console":
                lines = [line[2:] for line in lines if line.startswith("$ ")]
            for line in lines:
                for command in re.findall(rf"(?:^|\$\()({name} [^|)>#]*)", line.strip()):
                    yield block, command.strip()


COMMANDS = list(_commands("s3-checkpoint"))


@pytest.mark.parametrize(("block", "line"), COMMANDS, ids=[f"{block} {line}" for block, line in COMMANDS])
def test_commands_exist_with_their_options(block: Block, line: str) -> None:
    """Each `s3-checkpoint …` of a shell block is parsed by the command itself; nothing is run."""
    words = shlex.split(line)[1:]
    command: Any = get_command(build())
    context = command.context_class(command, info_name="s3-checkpoint")
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)

    command.make_context(name, words, parent=context)


MAKE = list(_commands("make"))


@pytest.mark.parametrize(("block", "command"), MAKE, ids=[f"{block} {command}" for block, command in MAKE])
def test_make_targets_exist(block: Block, command: str) -> None:
    """Each `make TARGET` of a shell block is a target of the Makefile."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert command.split()[1] in targets


def _table(page: str) -> Iterator[list[str]]:
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_settings_page_has_every_setting_with_its_default() -> None:
    """And no other."""
    rows = [row for row in _table("docs/reference/settings.md") if row[0].startswith("`")]
    documented = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}

    assert set(documented) == set(S3Settings.model_fields)
    for name, field in S3Settings.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"{field.default:,g}" in documented[name] or f"{field.default:,}" in documented[name], name


def test_errors_page_has_every_class_with_its_code() -> None:
    """And no other."""
    rows = [row for row in _table("docs/reference/errors.md") if row[0].startswith("`")]
    classes = {
        name: kind.code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.CheckpointError) and kind is not errors.CheckpointError
    }

    assert {row[0].strip("`"): row[1].strip("`") for row in rows} == classes


def test_exit_codes_page_has_every_code() -> None:
    """And no other."""
    rows = [row for row in _table("docs/reference/exit-codes.md") if row[0].isdigit()]

    assert [int(row[0]) for row in rows] == sorted(ExitCode)


def test_costs_of_readme_are_those_worked_out_in_infra() -> None:
    """A million supersteps, in dollars."""
    named = re.search(r"cost \[([0-9.]+) USD\]", README.read_text())
    total = re.search(r"\| \*\*total\*\* \| \| \*\*([0-9.]+)\*\* \|", (ROOT / "infra" / "README.md").read_text())

    assert named is not None
    assert total is not None
    assert named[1] == total[1]


def test_readme_is_short() -> None:
    """What needs more room has a page."""
    assert len(README.read_text().splitlines()) <= 250


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("docs/concepts/storage-layout.md", keys),
        ("docs/design/0005-langgraph-keys.md", thread_keys),
        ("docs/guides/claude-agent-sdk.md", session_keys),
        ("docs/guides/langgraph-memory.md", memory_keys),
    ],
    ids=["runs", "threads", "sessions", "memories"],
)
def test_pages_have_the_key_grammar_of_the_code(page: str, module: ModuleType) -> None:
    """The same patterns; the words behind them may differ."""
    pattern = re.compile(r"^ *(\[<prefix>/\]\S+)", re.MULTILINE)

    assert pattern.findall((ROOT / page).read_text()) == pattern.findall(module.__doc__ or "")


def test_layout_page_has_every_name_of_the_metadata() -> None:
    """And no other."""
    rows = [row for row in _table("docs/concepts/storage-layout.md") if row[0].startswith("`")]

    documented = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row[0])}
    assert documented == set(re.findall(r"^    ([a-z-]+)  ", metadata.__doc__ or "", re.MULTILINE))


LINKS = sorted(
    {
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text()))
        if not target.startswith("https://")
    }
)


@pytest.mark.parametrize(("page", "target"), LINKS, ids=[f"{p.relative_to(ROOT)} → {t}" for p, t in LINKS])
def test_links_lead_to_files_that_are_there(page: Path, target: str) -> None:
    """Relative ones; the web is not asked."""
    assert (page.parent / target).exists()


PROOFS = re.findall(
    r"(?:\[|, \[)([^\]\[]*::[^\]\[]*(?:\[[^\]]*\])?)\]\(\.\./\.\./(tests/[^)]+)\)",
    (ROOT / "docs" / "concepts" / "failure-semantics.md").read_text(),
)


@pytest.mark.parametrize(("label", "file"), PROOFS, ids=[f"{file} {label}" for label, file in PROOFS])
def test_proofs_of_the_failure_table_are_tests_that_are_there(label: str, file: str) -> None:
    """By name, or by the scenario in brackets."""
    text = (ROOT / file).read_text()
    name, _, scenario = label.partition("::")[2].partition("[")

    assert name == "…" or f"def {name}(" in text
    assert scenario.removesuffix("]") in text


def test_anchors_of_readme_lead_to_headings_that_are_there() -> None:
    """As the forge makes them of headings; those of the site are checked when it is built."""
    text = README.read_text()
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
