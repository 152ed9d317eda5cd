"""What do ``tidegate definitions export`` and ``import`` do?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.commands_shared import ConfigFile, DataDir, Overrides, directory, in_words, json_text, printable, settings

if TYPE_CHECKING:
    from gateway.admin.definitions import Report
    from gateway.config import Config

definitions = typer.Typer(
    help="Exchanges, queues, bindings and policies as a file, in the form of RabbitMQ's.", no_args_is_help=True
)

Vhost = Annotated[str, typer.Option(help="The virtual host.")]


def broker_or(data_dir: Path, question: str, otherwise: Callable[[], Any], **params: Any) -> Any:
    """Ask the broker that runs on a data directory; if none runs, do it otherwise. Raises GatewayError."""
    from gateway.admin.client import NoBroker, ask

    try:
        return ask(data_dir, question, **params)
    except NoBroker:
        return otherwise()


@definitions.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="Where to; standard output if it is not given.")] = None,
    vhost: Annotated[str | None, typer.Option(help="Only this virtual host.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Write what is defined; of the running broker, or else of the journal on disk. Changes nothing."""
    with in_words():
        data = exported(directory(config, data_dir, overrides), vhost)
        text = json_text(data, indent=2) + "\n"
        if file is None:
            sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
        else:
            _write(file, text)


def exported(data_dir: Path, vhost: str | None) -> dict[str, Any]:
    """Return the definitions of a broker, or of a journal. Raises GatewayError."""
    from gateway.admin.definitions import export as export_
    from gateway.admin.offline import read_engine
    from gateway.admin.parts import joined

    return joined(broker_or(data_dir, "definitions_export", lambda: [export_(read_engine(data_dir), vhost)], vhost=vhost))


def _write(file: Path, text: str) -> None:
    """Write a file that is this user's alone. One that is there stays as it was if this fails; a journal stays in any case."""
    from gateway.errors import ConfigError
    from gateway.journal.tools.files import draft_of, make_private, put_in_place, refuse_occupied

    if file.exists() and not file.is_file():  # /dev/stdout, a pipe
        with file.open("wb") as opened:
            opened.write(text.encode("utf-8", "surrogatepass"))
        return
    refuse_occupied(file)
    draft = draft_of(file)
    try:
        make_private(draft)
        draft.write_bytes(text.encode("utf-8", "surrogatepass"))
        put_in_place(draft, file)
    except OSError as error:
        raise ConfigError(f"{file}: can't be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


@definitions.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A definitions file, RabbitMQ's or Tidegate's.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be taken; change nothing.")] = False,
    vhost: Annotated[str | None, typer.Option(help="Where items go that name no virtual host.")] = None,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Define what a file says: all of it, or nothing if it contradicts what exists. What can't be taken is listed."""
    from gateway.admin.definitions_file import read_definitions

    with in_words():
        data = read_definitions(file)
        report = _imported(settings(config, data_dir, overrides), file, data, vhost, dry_run=dry_run)
    for line in report.lines(dry_run=dry_run):
        typer.echo(printable(line))


def _imported(config: Config, file: Path, data: dict[str, Any], vhost: str | None, *, dry_run: bool) -> Report:
    from gateway.admin.definitions import Report
    from gateway.admin.definitions import import_ as take
    from gateway.admin.definitions_file import naming
    from gateway.admin.offline import changed_engine, read_engine

    data_dir, limits = config.broker.data_dir, config.runtime_limits()

    def otherwise() -> Iterable[Any]:
        if dry_run:
            return take(read_engine(data_dir, limits=limits, may_lack=True), data, vhost=vhost, dry_run=True).plain()
        with changed_engine(data_dir, limits) as engine:
            return take(engine, data, vhost=vhost).plain()

    with naming(file):
        return Report.read(broker_or(data_dir, "definitions_import", otherwise, data=data, vhost=vhost, dry_run=dry_run))
