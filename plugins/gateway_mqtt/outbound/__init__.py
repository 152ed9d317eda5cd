"""What is a client sent, under which identifiers, and what if it does not keep up?"""

from gateway_mqtt.outbound.client import ClientLimits
from gateway_mqtt.outbound.exactly_once import DUP
from gateway_mqtt.outbound.pulse import PULSE_S, Pulse
from gateway_mqtt.outbound.replies import MOST_UNREAD_REPLIES_BYTES, Replies
from gateway_mqtt.outbound.sending import IDENTIFIERS
from gateway_mqtt.outbound.sink import Outbound

__all__ = ["DUP", "IDENTIFIERS", "MOST_UNREAD_REPLIES_BYTES", "PULSE_S", "ClientLimits", "Outbound", "Pulse", "Replies"]
