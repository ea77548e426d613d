"""What changed, written: coloured lines on a terminal, JSON elsewhere."""

from __future__ import annotations

from pydantic import JsonValue
from rich.text import Text

from s3_checkpoint._concurrency.gather import each
from s3_checkpoint._format.json_diff import Change
from s3_checkpoint._printable import printable
from s3_checkpoint.cli.arguments import LINES_SHOWN, Format
from s3_checkpoint.cli.output import as_json, chosen, cut, write_rows
from s3_checkpoint.cli.session import Session

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


async def write_changes(
    session: Session, changes: list[tuple[str, Change]], output: Format | None, *, full: bool, same: str
) -> None:
    """Writes the changes, each with the root of its path; without any, `same` is said on stderr."""
    if chosen(session, output) == Format.TABLE:
        shown = changes if full else changes[:LINES_SHOWN]
        for root, change in shown:
            session.out.print(_as_text(root, change), soft_wrap=True)
        if len(shown) < len(changes):
            session.note(f"cut: {len(shown)} of {len(changes):,} changes; --full shows all, --output jsonl writes all")
    else:
        await write_rows(session, each([change.as_row(root) for root, change in changes]), [], output)
    if not changes:
        session.note(same)


def _as_text(root: str, change: Change) -> Text:
    sign, style = _SIGNS[change.kind]
    text = Text.assemble((printable(f"{sign} {change.where(root)}"), style), ": ")
    if change.kind != "added":
        text.append(_short(change.before), "red")
    if change.kind == "changed":
        text.append(" → ")
    if change.kind != "removed":
        text.append(_short(change.after), "green")
    return text


def _short(value: JsonValue) -> str:
    return cut(as_json(value), 200)
