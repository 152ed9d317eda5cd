"""Which commands does the MQTT plugin add?"""

from __future__ import annotations

import typer

from gateway_mqtt.commands.properties import PropertyCommand
from gateway_mqtt.commands.pub import pub
from gateway_mqtt.commands.sub import sub

app = typer.Typer()
app.command(cls=PropertyCommand)(pub)
app.command(cls=PropertyCommand)(sub)
