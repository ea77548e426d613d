"""RESULTS.md: what was measured, on what, with ratios."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.cold_start import ColdStart
from tests.benchmarks.measuring import LATENCY_MS, Measured
from tests.benchmarks.targets import Row

PACKAGES = (
    "aioboto3", "aiobotocore", "pydantic", "langgraph-checkpoint", "langgraph-checkpoint-objectstorage", "s3fs",
    "langgraph-checkpoint-tigris", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres",
)  # fmt: skip
INTRODUCTION = """# Benchmark results

Written by `make bench`; do not edit. Everything is measured against a stub of S3 on loopback, in a process of its own:
**requests and round trips are exact** and the same on every machine; times are those of the client with an ideal
store, and depend on the machine. Round trips are requests that wait for another's answer. "at {latency} ms" adds
{latency} ms to the answer of each request. CPU is that of the client process; a database server's own is not in it.
Ratios are to the first row that has the same work. SQLite and PostgreSQL are local here, and pay no latency.
"""


def markdown(
    measured: Sequence[Measured],
    missing: Mapping[str, str],
    colds: Sequence[ColdStart],
    targets: Sequence[Row],
    langgraph_table: str,
) -> str:
    """The whole report."""
    parts = [INTRODUCTION.format(latency=LATENCY_MS), _machine(), _targets(targets), "## Side by side\n"]
    works = list(dict.fromkeys(row.work for row in measured))
    parts += [_work(work, [row for row in measured if row.work == work]) for work in works]
    if missing:
        parts.append("Left out: " + "; ".join(f"{name} ({reason})" for name, reason in missing.items()) + ".\n")
    parts.append(_cold(colds))
    parts.append("## Time of a latest lookup, by length of the history\n\n![growth](growth.svg)\n")
    if langgraph_table:
        parts.append(f"## LangGraph savers: more of their calls\n\n{langgraph_table.strip()}\n")
    return "\n".join(parts)


def ratios_of_cold_starts(colds: Sequence[ColdStart]) -> list[Row]:
    """The targets that cold starts have."""
    by_name = {row.name: row for row in colds}
    ours, bare = by_name["s3_checkpoint"], by_name["bare aioboto3"]
    model = by_name["bare aioboto3, and a pydantic model"]
    imported, pydantic = by_name["import s3_checkpoint"], by_name["import pydantic"]
    everything = by_name["import s3_checkpoint, all but the SDK"]
    return [
        ("`import s3_checkpoint` beyond `import pydantic`, CPU", "≤ 60", imported.cpu_ms - pydantic.cpu_ms, "ms"),
        ("the names a program uses, all but the SDK, beyond `import pydantic`, CPU", "",
         everything.cpu_ms - pydantic.cpu_ms, "ms"),
        ("cold start to the first committed byte / bare aioboto3, CPU", "≤ 1.05", ours.cpu_ms / bare.cpu_ms, ""),
        ("cold start to the first committed byte / bare aioboto3, wall", "≤ 1.05", ours.wall_ms / bare.wall_ms, ""),
        ("the same / bare aioboto3 and a pydantic model, CPU", "≤ 1.05", ours.cpu_ms / model.cpu_ms, ""),
    ]  # fmt: skip


def _machine() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    return (
        "## Machine\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {sys.version.split()[0]}; load averages at the end {load}. {packages}.\n"
    )


def _targets(targets: Sequence[Row]) -> str:
    lines = ["## What this library sets itself\n", "| what | bound | measured | |", "| --- | --- | --- | --- |"]
    for what, bound, value, unit in targets:
        verdict = "" if not bound else "holds" if holds(bound, value) else "**does not hold**"
        lines.append(f"| {what} | {bound} | {_number(value, unit)} | {verdict} |")
    return "\n".join([*lines, ""])


def holds(bound: str, value: float) -> bool:
    """Whether a value keeps to a bound such as `≤ 5`."""
    sign, limit = bound.split(" ")
    return value <= float(limit) if sign == "≤" else value >= float(limit)


def _work(work: str, rows: Sequence[Measured]) -> str:
    first = rows[0]
    lines = [
        f"### {work}\n",
        f"| | requests | round trips | ms | ms at {LATENCY_MS} ms | ratio | CPU ms | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        kinds = " + ".join(f"{number:,} {kind}" for kind, number in row.requests.items()) or "–"
        lines.append(
            f"| {row.contestant} | {kinds} | {row.round_trips or '–'} | {row.wall_ms:.1f} | {row.wall_far_ms:.1f} "
            f"| {row.wall_far_ms / first.wall_far_ms:.2f} | {row.cpu_ms:.2f} | {row.cpu_ms / first.cpu_ms:.2f} |"
        )
    return "\n".join([*lines, ""])


def _cold(colds: Sequence[ColdStart]) -> str:
    bare = colds[0]
    lines = [
        "## Cold start\n",
        "From the start of the interpreter to its end, one state of a few bytes stored; byte code is there.\n",
        "| | CPU ms | least CPU ms | wall ms | CPU ratio | wall ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.name} | {row.cpu_ms:.0f} | {row.least_cpu_ms:.0f} | {row.wall_ms:.0f} "
        f"| {row.cpu_ms / bare.cpu_ms:.2f} | {row.wall_ms / bare.wall_ms:.2f} |"
        for row in colds
    ]
    return "\n".join([*lines, ""])


def _number(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
    return f"{text} {unit}".strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
