"""The package tree: the layers that `lint-imports` holds, and honest names."""

from __future__ import annotations

import ast
import subprocess
import sys
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


@pytest.mark.parametrize("planted", ["errors.py", "_format/keys.py", "_runs/fork.py"])
def test_lint_imports_turns_red_on_a_planted_upward_import(planted: str, tmp_path: Path) -> None:
    """`make check` runs the contracts of `pyproject.toml`; here they are run on a copy with one wrong line."""
    for path in FILES:
        target = tmp_path / "s3_checkpoint" / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    wrong = tmp_path / "s3_checkpoint" / planted
    wrong.write_text(wrong.read_text() + "\nfrom s3_checkpoint.cli import app as app\n")

    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1, done.stdout
    module = "s3_checkpoint." + planted.removesuffix(".py").replace("/", ".")
    assert f"{module} -> s3_checkpoint.cli" in done.stdout
