"""What does `tidegate demo` show? That nothing confirmed is lost, with real sockets and a broker that is killed half way."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    seconds: Annotated[float, typer.Option(min=2.0, max=600.0, help="How long the sensors publish.")] = 12.0,
    sensors: Annotated[int, typer.Option(min=1, max=200, help="Simulated MQTT sensors (QoS 1).")] = 8,
    workers: Annotated[int, typer.Option(min=1, max=20, help="ZeroMQ worker processes.")] = 3,
) -> None:
    """Show sensors, a broker that is killed and started again, and workers; exit 0 only if nothing confirmed was lost."""
    from gateway.cli.demo.run import Plan, run_demo

    raise typer.Exit(run_demo(Plan(seconds, sensors, workers)))
