"""The command starts, says what it is, and says what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.session import guard

WITHOUT_EXTRA = "import sys; sys.modules['typer'] = None; from s3_checkpoint.cli import main; main()"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=180, check=False)


def test_a_missing_extra_is_said_in_one_line_with_what_to_install() -> None:
    ended = run("-c", WITHOUT_EXTRA)

    assert ended.returncode == 5
    assert ended.stdout == ""
    assert ended.stderr == "s3-checkpoint: the command line is not installed; pip install 's3-checkpoint[cli]'\n"


@pytest.mark.parametrize("module", ["s3_checkpoint", "s3_checkpoint.cli"])
def test_help_names_the_exit_codes(module: str) -> None:
    ended = run("-m", module, "--help")

    assert ended.returncode == 0
    assert "6 store unavailable" in " ".join(ended.stdout.split())


def test_help_imports_no_command_and_no_sdk() -> None:
    """What it shows are names and summaries; `--version` needs even less."""
    program = """
import sys
from s3_checkpoint.cli import main
try:
    main()
finally:
    ours = ("s3_checkpoint.", "aiobotocore", "botocore", "langgraph")
    print(*(name for name in sys.modules if name.startswith(ours)), file=sys.stderr)
"""

    loaded = run("-c", program, "--help").stderr.split()

    assert "s3_checkpoint.cli.app" in loaded
    assert {name for name in loaded if not name.startswith("s3_checkpoint.cli.")} == {
        "s3_checkpoint.cli",
        "s3_checkpoint.errors",
        "s3_checkpoint._printable",
    }
    assert {name for name in loaded if name.startswith("s3_checkpoint.cli.")} == {
        "s3_checkpoint.cli.app",
        "s3_checkpoint.cli.exit_codes",
        "s3_checkpoint.cli.lazy_group",
        "s3_checkpoint.cli.store_options",
    }


def test_the_command_line_needs_no_click_of_its_own() -> None:
    """typer has brought its own since 0.26; the extra installs no other."""
    ended = run("-c", "import sys; sys.modules['click'] = None; from s3_checkpoint.cli import main; main()", "runs")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no bucket is named" in ended.stderr


def test_an_unknown_command_is_wrong_usage() -> None:
    ended = run("-m", "s3_checkpoint.cli", "no-such-command")

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "no-such-command" in ended.stderr


def test_a_fault_of_the_program_is_told_without_the_values_it_met(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is, its type, and exit code 70: neither "the answer is no", nor a message with foreign words."""

    def fail() -> int:
        raise KeyError("pw-" + "secret" + chr(27) + "[2J")

    code = guard(fail)

    shown = capsys.readouterr().err
    assert (code, int(ExitCode.INTERNAL)) == (70, 70)
    assert "internal: KeyError; please report this" in shown
    assert "test_cli_entry.py" in shown
    assert "pw-secret" not in shown
    assert "\x1b" not in shown
