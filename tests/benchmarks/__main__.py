"""Runs the whole suite: `make bench`, or `python -m tests.benchmarks`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import cold_start, langgraph_turns, report, side_by_side, supersteps, targets, transports
from tests.benchmarks.contestants import CONTESTANTS, Library
from tests.benchmarks.growth_plot import Point, growth_svg
from tests.benchmarks.measuring import LATENCY_MS, Measured
from tests.benchmarks.stub_process import StubProcess, running_stub

HERE = Path(__file__).parent
STARTED = time.monotonic()


def say(text: str) -> None:
    """One line of progress."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)


async def library_targets(stub: StubProcess, scratch: Path) -> list[targets.Row]:
    """This library and clients that are used bare."""
    library = Library(stub.url, scratch)
    async with library.stack:
        await library.open()
        rows = await targets.requests_cost(stub, library, say)
        rows += await targets.aws_settings_cost(scratch, say)
        rows += await transports.rows(stub, say)
        rows += await targets.long_run(stub, library, say)
        rows += await supersteps.by_message(stub, library, say)
        rows += await supersteps.operators_calls(stub, library, say)
        return rows + await targets.large_states(library, say)


def growth(measured: list[Measured]) -> dict[str, list[Point]]:
    """Latest-lookup times of all that are on S3, by history length."""
    series: dict[str, list[Point]] = {}
    for row in measured:
        if row.work.startswith("latest of ") and row.requests:
            length = int(row.work.removeprefix("latest of ").replace(",", ""))
            series.setdefault(row.contestant, []).append((length, row.wall_far_ms))
    return series


def main() -> None:
    """Measures, prints, and writes RESULTS.md and growth.svg in this folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", help="a contestant by name; can be given again; writes no results")
    parser.add_argument("--quick", action="store_true", help="histories up to 1,000; writes no results")
    options = parser.parse_args()
    for name in list(os.environ):
        if name.startswith(("AWS_", "S3_CHECKPOINT_")):
            del os.environ[name]
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    kinds = [kind for kind in CONTESTANTS if not options.only or kind.name in options.only]
    histories = side_by_side.HISTORIES[:3] if options.quick else side_by_side.HISTORIES
    with running_stub() as stub, tempfile.TemporaryDirectory() as scratch:
        stub_colds = cold_start.run(stub.url, say)
        rows = asyncio.run(library_targets(stub, Path(scratch)))
        measured, missing = asyncio.run(side_by_side.run(stub, Path(scratch), kinds, say, histories))
        table = ""
        if not options.quick and not options.only:
            table = langgraph_rows(stub)
            turns, bounds = langgraph_turns.run(stub, say)
            table += f"\n\n### Conversations with delta channels\n\n{turns}"
            rows += bounds
    rows = report.ratios_of_cold_starts(stub_colds) + transports.ratios_of_cold_starts(stub_colds) + rows
    text = report.markdown(measured, missing, stub_colds, rows, table)
    print(text)
    if not options.only and not options.quick:
        (HERE / "RESULTS.md").write_text(text)
        title = f"Loading the latest checkpoint, {LATENCY_MS} ms per request"
        (HERE / "growth.svg").write_text(growth_svg(growth(measured), title))
        say(f"wrote {HERE / 'RESULTS.md'} and growth.svg")


def langgraph_rows(stub: StubProcess) -> str:
    """The LangGraph savers' own table."""
    from tests.benchmarks import langgraph_rows as rows

    say("LangGraph rows")
    return rows.table(rows.run(stub))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was written")
