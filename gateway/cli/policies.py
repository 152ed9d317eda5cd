"""What do ``tidegate policy set``, ``clear`` and ``list`` do?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.commands_shared import AsJson, ConfigFile, DataDir, Overrides, directory, in_words, json_text, printable
from gateway.cli.definitions import Vhost, broker_or

if TYPE_CHECKING:
    from pathlib import Path

policy = typer.Typer(help="Settings for all queues, or exchanges, whose name matches a pattern.", no_args_is_help=True)

Operator = Annotated[bool, typer.Option("--operator", help="An operator policy: it lowers the limits that others set.")]


@policy.command("set")
def set_(  # noqa: PLR0913 - options
    name: Annotated[str, typer.Argument(help="What the policy is called.")],
    pattern: Annotated[str, typer.Argument(help="A regular expression, searched in names; ^ and $ anchor it.")],
    definition: Annotated[str, typer.Argument(help='JSON: {"message-ttl": 60000, "max-length": 1000}')],
    apply_to: Annotated[str, typer.Option(help="all, queues, classic_queues, quorum_queues or exchanges.")] = "",
    priority: Annotated[int, typer.Option(help="Of all that match a queue the highest holds.")] = 0,
    operator: Operator = False,
    vhost: Vhost = "/",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Set a policy; it holds for the queues that are there at once."""
    with in_words():
        values = {"pattern": pattern, "definition": _object(definition), "priority": priority}
        if apply_to:
            values["apply-to"] = apply_to
        row = _set(directory(config, data_dir, overrides), vhost, name, values, operator=operator)
    kept = f"; without effect here: {', '.join(row['ignored'])}" if row["ignored"] else ""
    typer.echo(printable(f"{name}: set; it holds for {row['queues']} queue{'' if row['queues'] == 1 else 's'} now{kept}"))


def _object(text: str) -> Any:
    from gateway.errors import PreconditionFailed

    try:
        return json.loads(text)
    except ValueError as error:
        raise PreconditionFailed(f"the definition is no JSON: {error}") from error


def _set(data_dir: Path, vhost: str, name: str, values: dict[str, Any], *, operator: bool) -> dict[str, Any]:
    from gateway.admin.offline import changed_engine
    from gateway.admin.policies import listed
    from gateway.engine.definitions.policy import parse

    def otherwise() -> dict[str, Any]:
        policy_ = parse(name, values, operator=operator)
        with changed_engine(data_dir) as engine:
            engine.policies.set(vhost, policy_)
            return next(row for row in listed(engine, vhost) if (row["name"], row["operator"]) == (name, operator))

    return dict(broker_or(data_dir, "policy_set", otherwise, vhost=vhost, name=name, operator=operator, policy=values))


@policy.command()
def clear(
    name: Annotated[str, typer.Argument(help="What the policy is called.")],
    operator: Operator = False,
    vhost: Vhost = "/",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Delete a policy."""
    with in_words():
        _clear(directory(config, data_dir, overrides), vhost, name, operator=operator)
    typer.echo(printable(f"{name}: cleared"))


def _clear(data_dir: Path, vhost: str, name: str, *, operator: bool) -> None:
    from gateway.admin.offline import changed_engine

    def otherwise() -> None:
        with changed_engine(data_dir) as engine:
            engine.policies.delete(vhost, name, operator=operator)

    broker_or(data_dir, "policy_clear", otherwise, vhost=vhost, name=name, operator=operator)


@policy.command("list")
def list_(
    vhost: Annotated[str | None, typer.Option(help="Only of this virtual host.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """List the policies, in the order in which they are tried."""
    with in_words():
        rows = _listed(directory(config, data_dir, overrides), vhost)
    if as_json:
        typer.echo(json_text(rows, indent=2))
        return
    for row in rows:
        kind = "operator policy" if row["operator"] else "policy"
        head = f"{row['vhost']}  {kind} {row['name']}  priority {row['priority']}  {row['apply-to']} matching {row['pattern']!r}"
        ignored = f"  (without effect here: {', '.join(row['ignored'])})" if row["ignored"] else ""
        typer.echo(printable(f"{head}  {json.dumps(row['definition'], ensure_ascii=False)}  queues: {row['queues']}{ignored}"))


def _listed(data_dir: Path, vhost: str | None) -> list[dict[str, Any]]:
    from gateway.admin.offline import read_engine
    from gateway.admin.policies import listed

    return list(broker_or(data_dir, "policy_list", lambda: listed(read_engine(data_dir), vhost), vhost=vhost))
