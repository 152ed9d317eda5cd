"""What do the core's own verbs do?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.backup import backup, restore
from gateway.cli.commands_shared import Overrides, in_words
from gateway.cli.counters import counters
from gateway.cli.definitions import definitions
from gateway.cli.journal import journal
from gateway.cli.peek import peek
from gateway.cli.policies import policy
from gateway.cli.queues import queues, scheduled
from gateway.cli.verbs import Verbs
from gateway.version import version_line

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.host import Service

app = typer.Typer(
    cls=Verbs,
    help="A message broker: MQTT devices, AMQP programs and ZeroMQ services in one exchange / queue / acknowledgement model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_CONFIG_ERROR = 2


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version, and whether it is compiled.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="A TOML file. Without it: loopback only, standard ports.")] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="PATH", help="Directory of the journal, before the file's broker.data_dir.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Run the broker in the foreground until SIGTERM or SIGINT."""
    _check_machine()
    from gateway.app import run
    from gateway.config import load
    from gateway.errors import ConfigError

    try:
        settings = load(config, overrides or (), data_dir=data_dir)
    except ConfigError as error:
        raise _refusal(error) from error
    raise typer.Exit(run(settings))


@app.command()
def check_config(
    file: Annotated[Path, typer.Argument(help="A TOML file.")],
    overrides: Overrides = None,
) -> None:
    """Say whether `tidegate serve --config FILE` would take this configuration, and what would listen.

    Binds nothing, changes nothing; a definitions file that the configuration names is read, too.
    """
    _check_machine()
    from gateway.app import prepare
    from gateway.config import load
    from gateway.errors import ConfigError
    from gateway.host import Host
    from gateway.log import make_log

    try:
        settings = load(file, overrides or ())
    except ConfigError as error:
        raise _refusal(error) from error
    report, wrong = _rehearsed(settings)
    try:
        host = Host(make_log(settings.log))
        anonymous = prepare(settings, host)
    except ConfigError as error:
        raise _refusal(error) from error
    if wrong is not None:
        raise wrong
    typer.echo(f"{file}: ok")
    for line in report:
        typer.echo(f"broker.definitions: {line}")
    typer.echo(f"anonymous peers are {'let in' if anonymous else 'refused'}")
    for service in host.services.values():
        typer.echo(f"frontend.{service.name}: {_prospect(service)}")


app.command()(queues)
app.command()(counters)
app.command()(peek)
app.add_typer(scheduled, name="scheduled")
app.command()(backup)
app.command()(restore)
app.add_typer(journal, name="journal")
app.add_typer(definitions, name="definitions")
app.add_typer(policy, name="policy")


def _rehearsed(settings: Config) -> tuple[list[str], typer.Exit | None]:
    """Return what a start would make of the definitions file, in words, and what is to be raised if it can't be taken."""
    if settings.broker.definitions is None:
        return [], None
    from gateway.admin.definitions_file import rehearse

    try:
        with in_words():
            return list(rehearse(settings, settings.broker.definitions).lines(dry_run=True)), None
    except typer.Exit as exit_:
        return [], exit_


def _prospect(service: Service) -> str:
    from gateway.host import State

    said = service.state.value
    if service.state is State.CONFIGURED:
        return f"would listen on {', '.join(service.addresses) or 'nothing'}"
    return f"{said}: {service.error}" if service.error else said


def _check_machine() -> None:
    from gateway.cli.machine import lacking, untried

    if untried():
        typer.echo(f"tidegate: {untried()}", err=True)
    reasons = list(lacking())
    for reason in reasons:
        typer.echo(f"tidegate: {reason}", err=True)
    if reasons:
        raise typer.Exit(_CONFIG_ERROR)


def _refusal(error: Exception) -> typer.Exit:
    for line in str(error).splitlines():
        typer.echo(f"tidegate: {line}", err=True)
    return typer.Exit(_CONFIG_ERROR)
