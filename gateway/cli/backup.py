"""How are backups taken while the broker runs, and how is one brought back?"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.commands_shared import ConfigFile, DataDir, Overrides, directory, in_words, span_s
from gateway.cli.commands_shared import size as in_units


def backup(  # noqa: PLR0913 - options
    out: Annotated[Path, typer.Argument(metavar="OUT.db", help="The file; with --every the time is put before its suffix.")],
    every: Annotated[str | None, typer.Option(metavar="DURATION", help="Go on taking backups: 15m, 6h, 1d.")] = None,
    keep: Annotated[int, typer.Option(min=1, help="With --every: so many are kept, older ones go.")] = 7,
    pause_ms: Annotated[int, typer.Option(min=0, max=3_600_000, help="Rest after every 4 MiB, to spare the disk.")] = 0,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Copy the journal, whole and as of one moment; the broker may run. A file that is there goes once the new one is proven."""
    period_s = span_s(every) if every is not None else None
    with in_words():
        place = directory(config, data_dir, overrides)
        _check_place(out)
        if period_s is None:
            _take(place, out, pause_ms / 1000)
            return
    try:
        _go_on(place, out, period_s, keep, pause_ms / 1000)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _check_place(out: Path) -> None:
    """Say at once what no later try would change. Raises JournalUnwritable."""
    from gateway.errors import JournalUnwritable

    if not out.absolute().parent.is_dir():
        raise JournalUnwritable(f"{out} can't be written: there is no directory {out.parent}")


def _go_on(place: Path, out: Path, period_s: float, keep: int, pause_s: float) -> None:
    """Take one now and one each period. One that fails is named; the next is tried in its turn, and no old one goes for it."""
    due = time.monotonic()
    while True:
        try:
            with in_words():
                _take(place, stamped(out, time.time()), pause_s)
                for old in taken_before(out)[:-keep]:
                    old.unlink(missing_ok=True)
                    typer.echo(f"{old}: removed, {keep} newer ones are there")
        except typer.Exit:
            typer.echo(f"tidegate: no backup this time; the next try is in {period_s:,.0f} s", err=True)
        due = max(due + period_s, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))


def stamped(out: Path, now_s: float) -> Path:
    """Return the name of a backup taken at a time (UTC)."""
    return out.with_name(f"{out.stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_s))}{out.suffix}")


def taken_before(out: Path) -> list[Path]:
    """Return the backups of this name that are there, the oldest first.

    What is said to be from later than now is from before the clock was set back: older than any that was taken since.
    """
    now = stamped(out, time.time()).name
    name = re.compile(rf"{re.escape(out.stem)}-\d{{8}}T\d{{6}}Z{re.escape(out.suffix)}")
    return sorted((path for path in out.parent.iterdir() if name.fullmatch(path.name)), key=lambda path: (path.name <= now, path))


def _take(place: Path, out: Path, pause_s: float) -> None:
    from gateway.journal.tools.backup import copy_journal
    from gateway.journal.tools.inspection import journal_in

    started = time.monotonic()
    copy_journal(journal_in(place), out, pause_s=pause_s)
    typer.echo(f"{out}: {in_units(out.stat().st_size)}, whole, in {time.monotonic() - started:.1f} s")


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP.db", help="A file that `tidegate backup` wrote.")],
    force: Annotated[bool, typer.Option("--force", help="A journal that is there is put aside, not deleted.")] = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Make a backup the journal of the data directory. The broker must not run; the backup is proven whole first."""
    from gateway.journal.tools.restore import restore as restored

    with in_words():
        place = directory(config, data_dir, overrides)
        aside = restored(source, place, force=force)
    typer.echo(f"{place}: restored from {source}")
    if aside is not None:
        typer.echo(f"{aside}: the journal that was there")
