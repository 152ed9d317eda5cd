"""What do `tidegate queues` and `tidegate scheduled` show?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.commands_shared import AsJson, ConfigFile, DataDir, Overrides, age, directory, ended, in_words, printable, table

_SORTS = ("name", "messages", "bytes", "oldest", "in", "out")
_RIGHT = {1, 2, 3, 4, 5, 6, 7, 8}

_STORED_SCHEDULE = """
SELECT id, due_ms, vhost, exchange, key, length(body) FROM scheduled WHERE :vhost IS NULL OR vhost = :vhost
ORDER BY due_ms, id LIMIT :limit
"""

Vhost = Annotated[str | None, typer.Option(help="Only this virtual host.")]


def queues(  # noqa: PLR0913 - options
    vhost: Vhost = None,
    name: Annotated[str, typer.Option(metavar="PATTERN", help="Only queues whose name matches, with * and ?.")] = "*",
    sort: Annotated[str, typer.Option(help=f"By {', '.join(_SORTS)}.")] = "name",
    rates: Annotated[bool, typer.Option("--rates/--no-rates", help="Ask twice, and show messages per second.")] = True,
    interval: Annotated[float, typer.Option(min=0.05, max=3600, help="Seconds between the two questions.")] = 1.0,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Show the queues: of the running broker, or what its journal holds. Changes nothing."""
    if sort not in _SORTS:
        raise typer.BadParameter(f"{sort!r} is none of {', '.join(_SORTS)}", param_hint="--sort")
    with in_words():
        place = directory(config, data_dir, overrides)
        live = _ask_broker(place, vhost, name, interval if rates else 0.0)
        rows, alarms = live if live is not None else (_stored(place, vhost, name), [])
    rows.sort(key=lambda row: (row["vhost"], row["name"]))
    if sort != "name":
        column = {"oldest": "age_ms", "in": "in_per_s", "out": "out_per_s"}.get(sort, sort)
        rows.sort(key=lambda row: row.get(column) or 0, reverse=True)
    if as_json:
        typer.echo(json.dumps({"running": live is not None, "alarms": alarms, "queues": rows}, indent=1))
        return
    for alarm in alarms:
        typer.echo(f"ALARM: {printable(alarm)}")
    for line in _live_table(rows, rates=rates) if live is not None else _stored_table(rows):
        typer.echo(line)


def _ask_broker(place: Path, vhost: str | None, name: str, interval_s: float) -> tuple[list[dict[str, Any]], list[str]] | None:
    """Return rows and alarms; None: no broker runs."""
    from gateway.admin.client import NoBroker, ask

    params = {"pattern": name} | ({"vhost": vhost} if vhost is not None else {})
    try:
        rows = ask(place, "queues", **params)
        asked = time.monotonic()
        alarms = list(ask(place, "hello")["alarms"])
        if interval_s and rows:
            time.sleep(interval_s)
            later = ask(place, "queues", **params)
            _add_rates(rows, later, time.monotonic() - asked)
            rows = later
    except NoBroker:
        return None
    _add_ages(place, rows)
    return [row | {"messages": row["ready"] + row["unacked"]} for row in rows], alarms


def _add_rates(before: list[dict[str, Any]], after: list[dict[str, Any]], seconds: float) -> None:
    known = {(row["vhost"], row["name"], row["id"]): row for row in before}
    for row in after:
        old = known.get((row["vhost"], row["name"], row["id"]))
        if old is not None:
            row["in_per_s"] = round(max(row["given"] - old["given"], 0) / seconds, 1)
            row["out_per_s"] = round(max(_taken(row) - _taken(old), 0) / seconds, 1)


def _taken(row: dict[str, Any]) -> int:
    """Return how many left the queue, counted from some point on."""
    return int(row["given"] - row["ready"] - row["unacked"])


def _add_ages(place: Path, rows: list[dict[str, Any]]) -> None:
    """Say how old the oldest message on disk is; of what is only in memory nobody knows."""
    from gateway.errors import JournalError

    try:
        stored = {(row["vhost"], row["name"]): row["age_ms"] for row in _stored(place, None, "*")}
    except JournalError:
        stored = {}
    for row in rows:
        row["age_ms"] = stored.get((row["vhost"], row["name"])) if row["ready"] + row["unacked"] else None


def _stored(place: Path, vhost: str | None, name: str) -> list[dict[str, Any]]:
    from fnmatch import fnmatchcase

    from gateway.journal.tools.inspection import stored_queues

    now_ms = time.time_ns() // 1_000_000
    return [
        {
            "vhost": queue.vhost,
            "name": queue.name,
            "messages": queue.messages,
            "bytes": queue.body_bytes,
            "age_ms": max(now_ms - queue.oldest_ms, 0) if queue.oldest_ms else None,
        }
        for queue in stored_queues(place)
        if vhost in (None, queue.vhost) and fnmatchcase(queue.name, name)
    ]


def _live_table(rows: list[dict[str, Any]], *, rates: bool) -> list[str]:
    head = (
        "queue",
        "ready",
        "unacked",
        "total",
        "bytes",
        "consumers",
        "oldest",
        "in/s",
        "out/s",
        "state",
        "policy",
        "virtual host",
    )
    cells = [
        (
            row["name"],
            *(f"{row[key]:,}" for key in ("ready", "unacked", "messages", "bytes", "consumers")),
            _age(row),
            *(_rate(row, key) if rates else "-" for key in ("in_per_s", "out_per_s")),
            row["state"],
            row["policy"] or "-",
            row["vhost"],
        )
        for row in rows
    ]
    return list(table(head, cells, _RIGHT))


def _rate(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:,.1f}" if key in row else "-"


def _stored_table(rows: list[dict[str, Any]]) -> list[str]:
    head = ("queue", "messages", "bytes", "oldest", "virtual host")
    cells = [(row["name"], f"{row['messages']:,}", f"{row['bytes']:,}", _age(row), row["vhost"]) for row in rows]
    return list(table(head, cells, {1, 2, 3}))


def _age(row: dict[str, Any]) -> str:
    return "-" if row["age_ms"] is None else age(row["age_ms"])


# -- scheduled messages -------------------------------------------------------

scheduled = typer.Typer(help="Messages that are to be published later.", no_args_is_help=True)


@scheduled.command("list")
def list_scheduled(
    vhost: Vhost = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most, those that come first.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """List scheduled messages by time: of the running broker, or those in its journal."""
    from gateway.admin.client import NoBroker, ask

    with in_words():
        place = directory(config, data_dir, overrides)
        try:
            rows = ask(place, "scheduled", vhost=vhost or "", limit=limit or 0)
        except NoBroker:
            rows = _stored_schedule(place, vhost, limit)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    head = ("id", "due (UTC)", "in", "bytes", "exchange", "routing key", "virtual host")
    now_ms = time.time_ns() // 1_000_000
    cells = [
        (
            str(row["scheduled_id"]), _utc(row["due_ms"]), age(row["due_ms"] - now_ms), f"{row['body_bytes']:,}",
            row["exchange"], row["routing_key"], row["vhost"],
        )
        for row in rows
    ]  # fmt: skip
    for line in table(head, cells, {0, 2, 3}):
        typer.echo(line)


@scheduled.command()
def cancel(
    scheduled_id: Annotated[int, typer.Argument(metavar="ID", help="As `scheduled list` shows it.")],
    vhost: Vhost = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Forget a scheduled message; said when that is on disk. The broker must be running."""
    from gateway.admin.client import NoBroker, ask

    with in_words():
        place = directory(config, data_dir, overrides)
        params: dict[str, Any] = {"id": scheduled_id} | ({"vhost": vhost} if vhost is not None else {})
        try:
            where = ask(place, "cancel_scheduled", **params)
        except NoBroker as error:
            raise ended(f"{error}: start the broker to cancel what it has scheduled", 1) from error
    typer.echo(f"scheduled message {scheduled_id} of virtual host {where} is cancelled")


def _stored_schedule(place: Path, vhost: str | None, limit: int | None) -> list[dict[str, Any]]:
    from gateway.journal.tools.inspection import journal_in, reading

    names = ("scheduled_id", "due_ms", "vhost", "exchange", "routing_key", "body_bytes")
    with reading(journal_in(place)) as connection:
        found = connection.execute(_STORED_SCHEDULE, {"vhost": vhost, "limit": -1 if limit is None else limit}).fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def _utc(ms: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms / 1000))
    except (OverflowError, ValueError):  # a year that no calendar has
        return f"{ms} ms"
