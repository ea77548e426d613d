"""The package tree: the layers that `lint-imports` holds, and honest names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import s3_checkpoint

PACKAGE = Path(s3_checkpoint.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))


def test_no_file_is_named_for_nothing() -> None:
    """What has no honest name belongs to one of its callers."""
    names = {part.removesuffix(".py") for path in FILES for part in path.relative_to(PACKAGE).parts}
    assert not names & {"utils", "util", "helpers", "common", "base", "misc"}


def test_relative_imports_are_not_used() -> None:
    """Every import names the layer it reaches into."""
    for path in FILES:
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        assert all(node.level == 0 for node in nodes), path


def _lint_imports(copy: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=copy, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and the contracts of `pyproject.toml`, to be spoilt."""
    for path in FILES:
        target = tmp_path / "s3_checkpoint" / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return tmp_path


def test_the_layers_hold(copy: Path) -> None:
    """`make check` runs the same."""
    done = _lint_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors", "from s3_checkpoint.cli import app as app"),
        ("_format/keys", "from s3_checkpoint.checkpointer import S3Checkpointer as S3Checkpointer"),
        ("_runs/fork", "import botocore"),
    ],
)
def test_lint_imports_turns_red_on_a_planted_upward_import(copy: Path, module: str, line: str) -> None:
    """One wrong line is named."""
    wrong = copy / "s3_checkpoint" / f"{module}.py"
    wrong.write_text(f"{wrong.read_text()}\n{line}\n")

    done = _lint_imports(copy)

    assert done.returncode == 1
    assert f"s3_checkpoint.{module.replace('/', '.')} -> " in done.stdout


def test_picture_of_the_layers_is_the_contract() -> None:
    """In CONTRIBUTING.md, whose lines say besides what each layer is."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    picture = (ROOT / "CONTRIBUTING.md").read_text().split("```text\n")[1].split("```")[0]

    assert [line.partition("   ")[0].strip() for line in picture.splitlines()] == contract


AVOIDED = re.compile(
    r"\b(facts|whoever|somebody|under way|meanwhile|mend(s|ed)?|go(es|ing)? on|went on|rehears\w+|doors?|"
    r"survives being stored|stands? (at|beside|there|under))\b",
    re.IGNORECASE,
)
"""They have a better one in the field: metadata or details, the caller, in flight, concurrently, fix, continue."""


def test_words_that_have_a_better_one_are_not_used() -> None:
    """In names and prose of all that is written here; words with honest uses are left to the reader."""
    trees = [PACKAGE, *(ROOT / name for name in ("tests", "docs", "infra", "examples"))]
    files = [*ROOT.glob("*.md"), *(path for tree in trees for path in tree.rglob("*.*"))]
    files = [path for path in files if path != Path(__file__)]
    files = [path for path in files if not {"_build", "build"} & set(path.relative_to(ROOT).parts)]
    kinds = (".py", ".md", ".yaml", ".ipynb", ".js", ".html", ".toml")
    texts = {path: path.read_text().replace("_", " ") for path in files if path.suffix in kinds}

    found = {f"{path.relative_to(ROOT)}: {word[0]}" for path, text in texts.items() for word in AVOIDED.finditer(text)}

    assert not found
