"""A user's program passes both type checkers, and both see each of its mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.typing.completeness import pyright

HERE = Path(__file__).parent
FILES = [str(HERE / name) for name in ("program.py", "mistakes.py")]


def test_mypy_accepts_the_program_and_sees_each_mistake() -> None:
    """A mark without a mistake is an error too (`warn_unused_ignores` of `strict`)."""
    command = [sys.executable, "-m", "mypy", *FILES]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_pyright_accepts_the_program_and_sees_each_mistake() -> None:
    """A mark without a mistake is an error too (`reportUnnecessaryTypeIgnoreComment`)."""
    checked = pyright("--project", str(HERE.parents[1] / "pyproject.toml"))

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 errors" in checked.stdout


def test_every_mistake_is_marked_for_both_checkers() -> None:
    """So that none is seen by one of them alone."""
    marked = [line for line in Path(FILES[1]).read_text("utf-8").splitlines() if "ignore[" in line]

    assert len(marked) >= 20
    assert all("# type: ignore[" in line and "# pyright: ignore[" in line for line in marked)
