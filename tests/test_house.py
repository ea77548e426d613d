"""The layers: every file imports only from layers above its own, and has an honest name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import s3_checkpoint

ROOT = Path(s3_checkpoint.__file__).parent

ROWS = {
    "printable": -1,
    "errors": 0,
    "key_families": 0,
    "keys": 1,
    "metadata": 2,
    "models": 1,
    "json_numbers": 0,
    "json_paths": 0,
    "bulk_comparison": 0,
    "fidelity": 1,
    "foreign_errors": 1,
    "lazy_types": 1,
    "encoding_faults": 2,
    "compression": 1,
    "off_loop": 0,
    "graph": 2,
    "pydantic_internals": 0,
    "size_estimate": 0,
    "chunked_types": 1,
    "chunked_json": 2,
    "settings": 2,
    "thread_keys": 2,
    "object_store": 2,
    "policy": 2,
    "s3_errors": 2,
    "s3_machine": 1,
    "s3_http": 2,
    "s3_borrowed": 3,
    "s3_listing": 1,
    "s3_models": 1,
    "s3_requests": 1,
    "s3_tuning": 2,
    "codec": 3,
    "memory_store": 3,
    "s3_client": 3,
    "s3_door": 3,
    "s3_store": 4,
    "message_json": 4,
    "superstep_queue": 5,
    "read_ahead": 1,
    "request_events": 1,
    "step_listing": 3,
    "step_index": 4,
    "lineage": 3,
    "retention": 3,
    "run_records": 6,
    "step_objects": 4,
    "commit_protocol": 5,
    "checkpointer": 6,
    "connect": 7,
    "run_admin": 7,
    "loop_thread": 7,
    "sync": 8,
    "superstep": 8,
    "langgraph": 9,
    "aws_lambda": 9,
    "doctor": 9,
    "otel": 9,
    "demo": 10,
    "cli": 11,
    "__init__": 12,
}
"""A new file is given its row here. `codec` stands a row below `object_store`, whose values it makes."""

FILES = sorted(ROOT.rglob("*.py"))


def _module(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "s3_checkpoint":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("s3_checkpoint.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_rows_above_its_own(path: Path) -> None:
    """Never sideways, never down; files of one package may import each other."""
    module = _module(path)
    wrong = {other for other in _imported(path) if other != module and ROWS.get(other, 99) >= ROWS[module]}
    assert not wrong, f"{module} (row {ROWS[module]}) imports {wrong}"


def test_no_file_is_named_for_nothing() -> None:
    """What has no honest name belongs to one of its callers."""
    names = {part.removesuffix(".py") for path in FILES for part in path.relative_to(ROOT).parts}
    assert not names & {"utils", "util", "helpers", "common", "base", "misc"}


def test_relative_imports_are_not_used() -> None:
    """They would slip past the row test."""
    for path in FILES:
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        assert all(node.level == 0 for node in nodes), path
