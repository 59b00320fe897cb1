"""geoseg batch: a table of scenes through one recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from geoseg.batching.batch import Step


@click.command("batch")
@click.argument("pipeline", type=click.Path())
@click.option("-o", "--out", type=click.Path(), help="Folder for the results.  [default: `out:` of PIPELINE]")
@click.option("--retry-failed", is_flag=True, help="Try scenes again that failed before.")
@click.option("--overwrite", is_flag=True, help="Do scenes anew whose options or files have changed.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done about each scene; open none, write nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--log-json", is_flag=True, help="Progress as JSON lines on standard error.")
def command(
    pipeline: str, out: str | None, retry_failed: bool, overwrite: bool, dry_run: bool, quiet: bool, log_json: bool
) -> None:
    """Run every scene that the YAML file PIPELINE names, with its options.

    A scene that fails is set aside with its reason, and the rest goes on. The same command again resumes: what is done is not
    done again. pipelines/batch_scenes.yaml is one to copy; docs/batch.md says what each entry does.

    Exit codes: 0 all scenes are done, 3 some failed, 4 all failed, 1 the batch could not go on.

    \b
    geoseg recipe check my_batch.yaml        what is wrong, before anything runs
    geoseg batch my_batch.yaml -o fields-2026
    geoseg batch my_batch.yaml -o fields-2026 --retry-failed
    """
    from geoseg.batching import load_batch, run_batch
    from geoseg.batching.batch import plan_batch, target_of
    from geoseg.cli.progress import batch_progress

    batch = load_batch(pipeline)
    if dry_run:
        target = target_of(batch, out)
        _tell(plan_batch(batch, target, retry_failed=retry_failed, overwrite=overwrite))
        for note in batch.notes:
            click.echo(note)
        return
    with batch_progress(quiet=quiet, log_json=log_json) as (events, inside):
        result = run_batch(batch, out=out, retry_failed=retry_failed, overwrite=overwrite, events=events, inside=inside)
    if not quiet and not log_json:
        from geoseg.cli.tables import batch_table

        batch_table(result)
    click.get_current_context().exit(result.exit_code)


def _tell(steps: list[Step]) -> None:
    """What a batch would do."""
    from geoseg.cli.tables import rows_table

    words = {"run": "to run", "done": "done before", "failed": "failed before"}
    rows = []
    for step in steps:
        before = step.before
        todo = words[step.todo]
        if step.todo == "run" and before is not None:
            todo = {"begun": "to resume", "failed": "to try again", "done": "to look at again"}[before.status]
        reason = before.reason if before is not None and step.todo == "failed" else ""
        rows.append((step.scene.id, todo, reason or ";".join(step.scene.files)))
    rows_table(("scene", "what", "file or reason"), rows)
    waiting = sum(step.todo == "run" for step in steps)
    click.echo(f"{waiting} of {len(steps)} scenes would run; nothing was written")
