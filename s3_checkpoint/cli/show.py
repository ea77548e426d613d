"""`show`: one step of a run."""

from __future__ import annotations

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._views.run_views import StepView
from s3_checkpoint.cli.arguments import Format, FullOption, NamespaceOption, OutputOption, RunArgument, StepOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.output import chosen, show_fields, show_json, size, when, write_document
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    step: StepOption = None,
    full: FullOption = False,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """Show a step of a run, by default the newest: its state, the tasks that run next, and how it was stored."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        view = await bucket.view(keys, step)
    if chosen(session, output, in_pipe=Format.JSON) != Format.TABLE:
        write_document(session, view.as_row(keys.run_id), output)
        return
    show_fields(session, _fields(keys, view))
    show_json(session, view.state, full=full)


def _fields(keys: RunKeys, view: StepView) -> list[tuple[str, str]]:
    wrote = "commit" if view.committed else "save"
    stored = f"{when(view.last_modified.isoformat())}, {size(view.size)}"
    fields = [
        ("run", str(keys.run_id)),
        ("step", str(view.step)),
        ("stored", f"{stored}, by {wrote}, schema version {view.schema_version}"),
        ("next", ", ".join(task.node_name for task in view.active) or "no active tasks"),
    ]
    if view.origin is not None:
        fields.append(("fork of", f"run {view.origin.run_id}, step {view.origin.step}"))
    return fields
