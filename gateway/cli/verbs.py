"""How do the verbs of plugins come to stand beside the core's own?"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

INTERRUPTED = 130
"""The exit code of who was ended by SIGINT, as shells tell it."""


class Verbs(TyperGroup):
    """The verbs of ``tidegate``. The core's own are found at once; plugins are only loaded for a verb that is not one of them."""

    _are_plugins_loaded = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb, or None."""
        if cmd_name not in self.commands:
            self._load_demo() if cmd_name == "demo" else self._load_plugins()
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; who interrupts it is told nothing that he doesn't know."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs."""
        self._load_demo()
        self._load_plugins()
        return super().list_commands(ctx)

    def _load_demo(self) -> None:
        from gateway.cli.demo import demo

        application = typer.Typer()
        application.command("demo")(demo)
        self._take(application)

    def _load_plugins(self) -> None:
        if self._are_plugins_loaded:
            return
        self._are_plugins_loaded = True
        from gateway.host import Host

        host = Host(Complaints())
        host.discover()
        for application in host.commands():
            self._take(application)

    def _take(self, application: typer.Typer) -> None:
        for name, command in typer.main.get_group(application).commands.items():
            command.rich_markup_mode = self.rich_markup_mode  # type: ignore[attr-defined]  # help looks alike everywhere
            self.commands.setdefault(name, command)


class Complaints:
    """A log for the few lines that a verb may cause: plain, on standard error."""

    def bind(self, **values: Any) -> Complaints:
        """Return a log that says no more than this one."""
        return self

    def info(self, event: str, **values: Any) -> None:
        """Say nothing."""

    def warning(self, event: str, **values: Any) -> None:
        """Say it as an error."""
        self.error(event, **values)

    def error(self, event: str, **values: Any) -> None:
        """Say it."""
        details = ", ".join(f"{key}: {value}" for key, value in values.items())
        typer.echo(f"tidegate: {event} ({details})", err=True)
