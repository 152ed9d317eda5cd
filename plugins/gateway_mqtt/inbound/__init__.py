"""What becomes of a client's publishes?"""

from gateway_mqtt.inbound.answers import ANY, Terms
from gateway_mqtt.inbound.sink import Inbound

__all__ = ["ANY", "Inbound", "Terms"]
