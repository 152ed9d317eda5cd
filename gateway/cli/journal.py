"""What can be done with a journal beside the broker?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.commands_shared import FINDINGS, AsJson, ConfigFile, DataDir, Overrides, decoders, directory, in_words, printable
from gateway.cli.commands_shared import size as in_units

_LOOK = "SELECT * FROM readable LIMIT 10"

_KINDS = {
    "message": "messages",
    "queue": "queues",
    "exchange": "exchanges",
    "binding": "bindings",
    "retained": "last values",
    "scheduled": "scheduled messages",
    "state": "values of front-ends",
}

journal = typer.Typer(help="Check, measure, export, shrink or save a journal.", no_args_is_help=True)


@journal.command()
def check(config: ConfigFile = None, data_dir: DataDir = None, overrides: Overrides = None) -> None:
    """See whether the journal is whole: pages, checksums, counts. Reads all of it, changes nothing; the broker may run."""
    from gateway.journal.tools.check import findings
    from gateway.journal.tools.inspection import journal_in, reading

    with in_words():
        path = journal_in(directory(config, data_dir, overrides))
        with reading(path) as connection:
            found = 0
            for finding in findings(connection):
                found += 1
                typer.echo(printable(finding))
            (segments,) = connection.execute("SELECT count(*) FROM seg").fetchone() if not found else (0,)
    if found:
        typer.echo(f"{path}: {found} findings; `tidegate journal recover` saves what can be read")
        raise typer.Exit(FINDINGS)
    typer.echo(f"{path}: whole ({segments:,} segments)")


@journal.command()
def stats(as_json: AsJson = False, config: ConfigFile = None, data_dir: DataDir = None, overrides: Overrides = None) -> None:
    """Say how large the journal is, and what takes the room. Changes nothing; the broker may run."""
    from gateway.journal.tools.inspection import journal_in, reading
    from gateway.journal.tools.stats import stats as measured

    with in_words():
        path = journal_in(directory(config, data_dir, overrides))
        with reading(path) as connection:
            found = measured(connection, path)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
        return
    lines = {
        "journal": str(path),
        "format": f"{found.format}",
        "closed in order": "yes" if found.clean else "no: the broker runs, or was killed",
        "database": in_units(found.file_bytes),
        "  free pages in it": in_units(found.free_bytes),
        "write-ahead log": in_units(found.wal_bytes),
        "segments": f"{found.segments:,} with {in_units(found.segment_bytes)}, of that {in_units(found.index_bytes)} indexes",
        "messages written in them": f"{found.messages:,}, with {found.references:,} places in queues",
        "still wanted": f"{found.live:,} places ({found.live_share:.0%}), {in_units(found.live_bytes)} of bodies",
        "in quarantine": f"{found.quarantined:,} segments",
        "queues": f"{found.queues:,}",
        "last values": f"{found.retained:,}",
        "values of front-ends": f"{found.states:,}",
    }
    lines |= _since_start(path)
    for name, value in lines.items():
        typer.echo(f"{name:25} {value}")
    for number, queue in enumerate(found.largest):
        label = "" if number else "largest queues"
        name = printable(f"{queue.name} ({queue.vhost})")
        typer.echo(f"{label:25} {in_units(queue.body_bytes):>10}  {queue.messages:>12,}  {name}")


def _since_start(path: Path) -> dict[str, str]:
    """Return what the running broker has written, if there is one."""
    from gateway.admin.client import NoBroker, ask

    try:
        counted = ask(path.parent, "counters")
    except NoBroker:
        return {}
    written, messages = counted["journal.bytes_written"], counted["journal.messages_written"]
    return {
        "since the broker's start": "",
        "  bytes written": f"{in_units(written)}" + (f", {written / messages:,.0f} for each message" if messages else ""),
        "  messages written": f"{messages:,}; {counted['journal.messages_elided']:,} were done with before their commit",
        "  commits, syncs": f"{counted['journal.commits']:,}, and at least {counted['journal.syncs_at_least']:,}",
    }


@journal.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT.db", help="A new SQLite file.")],
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="Leave out what can't be read, and name it.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Write every message, one row per message and queue, into plain tables of a new file. The broker may run."""
    from gateway.journal.tools.export import export as exported
    from gateway.journal.tools.inspection import journal_in

    damaged: list[int] = []
    with in_words():
        path = journal_in(directory(config, data_dir, overrides))
        count = exported(path, out, decoders().properties, damaged=damaged if skip_damaged else None)
    typer.echo(f"{out}: {count:,} messages. Look at them with: sqlite3 {out} '{_LOOK}'")
    for segment in sorted(set(damaged)):
        typer.echo(f"segment {segment} is damaged and left out")
    raise typer.Exit(FINDINGS if damaged else 0)


@journal.command()
def recover(
    out_dir: Annotated[Path | None, typer.Argument(help="Where the new journal goes; else to the broken one's place.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Save what can be read out of a broken journal into a new one; the broken file is kept. The broker must not run."""
    from gateway.journal.tools.salvage import recover as recovered

    with in_words():
        found = recovered(directory(config, data_dir, overrides), out_dir)
    saved = ", ".join(f"{found.saved.get(kind, 0):,} {name}" for kind, name in _KINDS.items())
    typer.echo(f"{found.journal}: a new journal with what could be read: {saved}")
    typer.echo(f"{found.broken}: the broken one, as it was")
    for line in found.lost:
        typer.echo(f"lost: {printable(line)}")
    if not found.lost:
        typer.echo("nothing is known to be lost")
    raise typer.Exit(FINDINGS if found.lost else 0)


@journal.command()
def compact(config: ConfigFile = None, data_dir: DataDir = None, overrides: Overrides = None) -> None:
    """Write the journal anew, as small as it can be. The broker must not run; the old file stays until the new one is proven."""
    from gateway.journal.tools.compact import compact as compacted

    with in_words():
        done = compacted(directory(config, data_dir, overrides))
    typer.echo(
        f"{in_units(done.before_bytes)} before, {in_units(done.after_bytes)} now;"
        f" {done.segments_before:,} segments before, {done.segments_after:,} now"
    )
