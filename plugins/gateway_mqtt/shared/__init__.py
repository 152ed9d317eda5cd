"""Who are the members of a shared subscription, and how does each get its part?

A group and its filter are one queue, `share_queue_name`, from which every member's connection consumes; so may any other protocol.
It is there as long as it has members, and durable as soon as one of them has a session that lasts.
"""

from gateway_mqtt.shared.groups import MEMBERS, Shares, Wish, parse_share, share_queue_name
from gateway_mqtt.shared.member import MOST_AT_ONCE, Member

__all__ = ["MEMBERS", "MOST_AT_ONCE", "Member", "Shares", "Wish", "parse_share", "share_queue_name"]
