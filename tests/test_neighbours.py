"""The library can be installed beside what its users have: pip's resolver is asked, and nothing is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEIGHBOURS = {
    "boto3": ">=1.43",
    "aiobotocore": ">=3",
    "langgraph-checkpoint-aws": ">=1.2",
    "langchain-aws": ">=1.9",
    "bedrock-agentcore": ">=1.25",
    "aws-durable-execution-sdk-python": ">=2",
}
"""What an application on AWS has beside this library, at releases that an old botocore would rule out."""


@pytest.mark.skipif(find_spec("pip") is None, reason="pip is not installed here")
@pytest.mark.skipif(
    not os.environ.get("S3_CHECKPOINT_TEST_INDEX"),
    reason="asks a package index, for a minute; set S3_CHECKPOINT_TEST_INDEX=1, as .ci/run does",
)
def test_the_library_and_all_its_neighbours_can_be_installed_together(tmp_path: Path) -> None:
    """In one environment, so in any smaller one too."""
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["langgraph"]]
    wanted += [name + bounds for name, bounds in NEIGHBOURS.items()]
    report = tmp_path / "report.json"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--report",
        str(report),
    ]

    asked = subprocess.run([*pip, *wanted], capture_output=True, text=True, timeout=600, check=False)

    assert asked.returncode == 0, asked.stderr[-3000:]
    found = {item["metadata"]["name"] for item in json.loads(report.read_text())["install"]}
    assert NEIGHBOURS.keys() <= found


def test_no_requirement_names_a_package_that_pins_the_sdk() -> None:
    """`aioboto3` allows one release of aiobotocore, so it is for applications that choose it: an extra."""
    assert not [each for each in PROJECT["dependencies"] if each.startswith(("aioboto3", "boto3", "botocore"))]
    assert [each for each in PROJECT["optional-dependencies"]["aioboto3"] if each.startswith("aioboto3")]
