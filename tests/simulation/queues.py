"""Which queues are there, and what do they make of the messages that they get?

For each: how it is declared, and its `Shape`.
"""

from __future__ import annotations

from typing import Any

from gateway.api import Overflow, Retry

DEAD = "dead"

_DEADLY = {"dead_letter_exchange": DEAD}
QUEUES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "jobs": ({}, {"exact": False}),
    "pushed": ({}, {"exact": False}),
    "graves": ({}, {}),
    "copies": ({}, {}),
    "purged": ({}, {}),
    "victim": ({}, {}),
    "short": ({"max_length": 30, **_DEADLY}, {"to_graves": True}),
    "brief": ({"max_length": 20}, {"lossy": True}),
    "light": ({"max_length_bytes": 12_000, **_DEADLY}, {"to_graves": True}),
    "strict": ({"max_length": 150, "overflow": Overflow.REJECT_PUBLISH}, {}),
    "stricter": ({"max_length": 150, "overflow": Overflow.REJECT_PUBLISH_DLX, **_DEADLY}, {"to_graves": True}),
    "ageing": ({"message_ttl_ms": 400, **_DEADLY}, {"to_graves": True}),
    "mortal": ({"message_ttl_ms": 400}, {"lossy": True}),
    "ranked": ({"max_priority": 3, "priority_burst": 5}, {}),
    "ranked-short": ({"max_priority": 9, "max_length": 40, **_DEADLY}, {"to_graves": True}),
    "poison": ({"delivery_limit": 2, **_DEADLY}, {"to_graves": True}),
    "retry": ({"retry": Retry(50, 2.0, 1_000, 3), **_DEADLY}, {"to_graves": True, "tidy": False}),
    "single": ({"single_active_consumer": True}, {}),
    "leased": ({"consumer_timeout_ms": 300}, {}),
    "single-leased": ({"single_active_consumer": True, "consumer_timeout_ms": 200}, {}),
    "ruled": ({}, {"lossy": True, "to_graves": True, "tidy": False}),
    "unique": ({}, {}),
    "delayed": ({}, {}),
    "wills": ({}, {}),
}
EXCHANGES = {"unique": "once", "delayed": "later"}
"""Queues that are not bound to the exchange of all others; the words of an exchange's keys begin with its name."""
KEPT = "kept"
WILLS = "wills"
OWN = "own-"
"""So begins the name of what a client declares for itself."""
ALWAYS = ("jobs", "pushed", "graves")
