"""What do the core's own verbs do?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.definitions import definitions
from gateway.cli.policies import policy
from gateway.cli.verbs import Verbs
from gateway.version import version_line

if TYPE_CHECKING:
    from gateway.host import Service

app = typer.Typer(
    cls=Verbs,
    help="A message gateway broker: MQTT devices and ZeroMQ services in one exchange / queue / acknowledgement model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_CONFIG_ERROR = 2
_JOURNAL_ERROR = 74

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting, before the file's: a dotted key; TOML, or a plain string. Repeatable."
    ),
]


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
    """Say whether `tidegate serve --config FILE` would take this configuration, and what would listen; bind nothing."""
    _check_machine()
    from gateway.app import prepare
    from gateway.config import load
    from gateway.errors import ConfigError
    from gateway.host import Host
    from gateway.log import make_log

    try:
        settings = load(file, overrides or ())
        host = Host(make_log(settings.log))
        anonymous = prepare(settings, host)
    except ConfigError as error:
        raise _refusal(error) from error
    typer.echo(f"{file}: ok")
    typer.echo(f"anonymous peers are {'let in' if anonymous else 'refused'}")
    for service in host.services.values():
        typer.echo(f"frontend.{service.name}: {_prospect(service)}")


@app.command()
def queues(
    config: Annotated[Path | None, typer.Option(help="The TOML file that the broker runs with.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Directory of the journal, before the file's broker.data_dir.")] = None,
    overrides: Overrides = None,
) -> None:
    """Show what the durable queues hold on disk; the broker may be running. Changes nothing."""
    from gateway.config import load
    from gateway.errors import ConfigError, JournalError
    from gateway.journal.inspection import stored_queues

    try:
        found = stored_queues(load(config, overrides or (), data_dir=data_dir).broker.data_dir)
    except ConfigError as error:
        raise _refusal(error) from error
    except JournalError as error:
        typer.echo(f"tidegate: {error}", err=True)
        raise typer.Exit(_JOURNAL_ERROR) from error
    width = max([len(queue.name) for queue in found], default=0)
    typer.echo(f"{'queue':{width}}  {'messages':>12}  {'bytes':>15}  virtual host")
    for queue in found:
        typer.echo(f"{queue.name:{width}}  {queue.messages:12,}  {queue.body_bytes:15,}  {queue.vhost}")


app.add_typer(definitions, name="definitions")
app.add_typer(policy, name="policy")


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
