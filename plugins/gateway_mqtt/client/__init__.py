"""How does a program speak MQTT to a broker? As much as `tidegate pub` and `tidegate sub` need."""

from gateway_mqtt.client.client import WINDOW, Client, Lost, Refused, open_client
from gateway_mqtt.client.reach import Place, Tls

__all__ = ["WINDOW", "Client", "Lost", "Place", "Refused", "Tls", "open_client"]
