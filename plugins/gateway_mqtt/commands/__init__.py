"""What do `tidegate pub` and `tidegate sub` do, with the common flags of mosquitto_pub and mosquitto_sub?"""

from gateway_mqtt.commands.app import app

__all__ = ["app"]
