"""`doctor`: does this bucket honour what the library relies on?"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

from s3_checkpoint.cli.arguments import Format, OutputOption
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.output import chosen, foreign, write_rows
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.doctor import Finding, Status, examine

_SHOWN = {
    Status.PASS: ("✓ pass", "green"),
    Status.WARN: ("! warn", "yellow"),
    Status.FAIL: ("✗ FAIL", "bold red"),
    Status.SKIP: ("– skip", "dim"),
    Status.INCONCLUSIVE: ("? inconclusive", "magenta"),
}


@session_command
async def command(session: Session, *, output: OutputOption = None) -> ExitCode | None:
    """Probe a bucket for each thing the library relies on, and say what to do where it does not hold.

    Writes some 50 small objects under a run id of its own, and removes them. Exit codes: 0 every promise holds; 1 one
    does not hold; 6 none was seen to fail, but answers were lost or made no sense: run it again. A store that ignores
    conditional writes is reported as unsafe for commit; one whose answers are lost is not.
    """
    findings: list[Finding] = []

    async def rows() -> AsyncGenerator[dict[str, JsonValue], None]:
        async with aclosing(examine(session.settings)) as found:
            async for finding in found:
                findings.append(finding)
                yield {
                    "probe": finding.probe,
                    "status": finding.status.value,
                    "found": finding.found,
                    "means": finding.means,
                    "fix": finding.fix,
                }

    if chosen(session, output) == Format.TABLE:
        with session.err.status("probing") as status:
            async with aclosing(rows()) as probed:
                async for row in probed:
                    status.update(f"probed {row['probe']}")
        session.out.print(_table(findings))
        _explain(session, findings)
    else:
        await write_rows(session, rows(), [], output)
    broken = [finding.probe for finding in findings if finding.status == Status.FAIL]
    unclear = [finding.probe for finding in findings if finding.status == Status.INCONCLUSIVE]
    if any(finding.absent for finding in findings):
        session.note(f"{session.where}: nothing could be checked, because the bucket is not there")
        return ExitCode.NO
    if broken:
        unsafe = "; UNSAFE FOR COMMIT" if any(finding.unsafe for finding in findings) else ""
        session.note(f"{session.where}: not every promise holds ({', '.join(broken)}){unsafe}")
        return ExitCode.NO
    if unclear:
        session.note(f"{session.where}: inconclusive, answers were lost or made no sense ({', '.join(unclear)})")
        return ExitCode.UNAVAILABLE
    session.note(f"{session.where}: every promise holds")
    return None


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PROBE")
    table.add_column("", no_wrap=True)
    table.add_column("FOUND", overflow="fold")
    for finding in findings:
        sign, style = _SHOWN[finding.status]
        table.add_row(Text(finding.probe), Text(sign, style), foreign(finding.found))
    return table


def _explain(session: Session, findings: list[Finding]) -> None:
    """What each failure means, and how to fix it."""
    for finding in findings:
        if finding.status in (Status.WARN, Status.FAIL, Status.INCONCLUSIVE):
            _, style = _SHOWN[finding.status]
            session.out.print()
            session.out.print(Text.assemble((finding.probe, style), ": ", foreign(finding.found)), soft_wrap=True)
            session.out.print(Text.assemble(("  means ", "bold"), foreign(finding.means)), soft_wrap=True)
            session.out.print(Text.assemble(("  fix   ", "bold"), foreign(finding.fix)), soft_wrap=True)
