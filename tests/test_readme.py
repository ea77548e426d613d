"""The README is true: its quick start runs as pasted, its tables say what the code says, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s3_checkpoint import S3Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _quick_start() -> str:
    section = README.split("## Quick start")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1]


def test_the_quick_start_runs_as_pasted_and_goes_on_where_it_was(settings: S3Settings, tmp_path: Path) -> None:
    """Twice, each time in a process of its own."""
    script = tmp_path / "quickstart.py"
    script.write_text(_quick_start())
    environment = os.environ | {
        "S3_CHECKPOINT_BUCKET": settings.bucket,
        "S3_CHECKPOINT_ENDPOINT_URL": settings.endpoint_url or "",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": str(ROOT),
    }

    printed = [
        subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]

    assert "step=0, state=Research(question='Why is the sky blue?', notes=[])" in printed[0]
    assert "step=1, state=Research(question='Why is the sky blue?', notes=['note 1'])" in printed[1]


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """And the table has no other."""
    section = README.split("## Settings")[1].split("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    documented = {name: row[2] for row in rows for name in re.findall(r"`(\w+)`", row[1])}

    assert set(documented) == set(S3Settings.model_fields)
    for name, field in S3Settings.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"{field.default:,g}" in documented[name] or f"{field.default:,}" in documented[name], name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", README))))
def test_links_lead_to_files_that_are_there(target: str) -> None:
    """Relative ones; the web is not asked."""
    assert target.startswith("https://") or (ROOT / target).exists()


def test_anchors_lead_to_headings_that_are_there() -> None:
    """As the forge makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
