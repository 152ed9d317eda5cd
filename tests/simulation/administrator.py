"""What does an administrator do to a broker at work?"""

from __future__ import annotations

import json
from typing import Any

from gateway.admin import definitions
from gateway.api import GatewayError
from gateway.engine.definitions.policy import Policy
from gateway.errors import Overloaded
from tests.simulation.program import Program, text_of
from tests.simulation.queues import DEAD, OWN

POLICIES: tuple[dict[str, Any], ...] = (
    {"max-length": 20},
    {"message-ttl": 200},
    {"max-length-bytes": 9_000},
    {"max-length": 20, "overflow": "reject-publish"},
    {"retry-delay": 60, "retry-attempts": 2, "dead-letter-exchange": DEAD},
    {"delivery-limit": 1, "dead-letter-exchange": DEAD},
    {"consumer-timeout": 150},
    {"message-ttl": 0, "dead-letter-exchange": DEAD},
    {"max-length": 5, "overflow": "reject-publish-dlx", "dead-letter-exchange": DEAD},
)


class Administrator(Program):
    """Purges, deletes, declares, sets policies, cancels what is scheduled, imports definitions."""

    saved: Any = None

    def act(self) -> None:
        chance = self.world.chance
        action = chance.choice(
            (self.purge, self.delete, self.set_policy, self.drop_policy, self.cancel, self.save, self.bring_back)
        )
        try:
            action()
        except GatewayError as error:
            self.world.log(f"the administrator is told: {error.text}")

    def decided(self, what: Any, outcome: Any) -> None:
        if what == "delete":
            self.numbers[self.channel.declare_queue(self.world.spec("victim"))] = "declare"

    def purge(self) -> None:
        for queue in ("purged", "victim"):
            if queue in self.world.queues:
                self.world.ledger.forgive(queue)
                self.numbers[self.channel.purge_queue(queue)] = "purge"

    def delete(self) -> None:
        if "victim" in self.world.queues:
            self.world.ledger.forgive("victim")
            self.world.ledger.shapes.pop("victim", None)  # it will be back, but with no bindings
            self.numbers[self.channel.delete_queue("victim")] = "delete"

    def set_policy(self) -> None:
        definition = self.world.chance.choice(POLICIES)
        self.world.log(f"policy {definition}")
        self.world.engine.policies.set("/", Policy("rule", "^ruled$", definition))

    def drop_policy(self) -> None:
        self.world.engine.policies.delete("/", "rule")

    def save(self) -> None:
        self.saved = json.loads(json.dumps(definitions.export(self.world.engine)))
        for section, name in (("queues", "name"), ("bindings", "destination")):  # what goes by itself may be gone
            self.saved[section] = [item for item in self.saved[section] if not item[name].startswith(("fleeting", "mqtt.", OWN))]

    def bring_back(self) -> None:
        """Import what was defined once: all of it has to be there then."""
        if self.saved is None:
            return
        self.world.log("definitions are imported")
        try:
            report = definitions.import_(self.world.engine, self.saved)
        except Overloaded as error:
            self.world.log(f"the administrator is told: {error.text}")
            return
        self.world.ledger.check(not report.skipped, f"an import does not take {report.skipped}")
        there = definitions.export(self.world.engine)
        for section in ("queues", "exchanges", "bindings", "policies"):
            missing = [item for item in self.saved[section] if item not in json.loads(json.dumps(there[section]))]
            self.world.ledger.check(not missing, f"after an import there is no {missing}")

    def cancel(self) -> None:
        planned = self.channel.scheduled()
        if planned:
            chosen = self.world.chance.choice(planned)
            text = self.text_of_scheduled(chosen.scheduled_id)
            if text is None:  # it is on disk only, and nobody could say later what is missed
                return
            self.world.ledger.excuse_everywhere(text)
            self.numbers[self.channel.cancel_scheduled(chosen.scheduled_id)] = "cancel"

    def text_of_scheduled(self, scheduled_id: int) -> str | None:
        message = self.world.engine.schedule.bodies.find(scheduled_id)
        if message is not None:
            return text_of(message.body)
        store = self.world.store
        return text_of(store.scheduled[scheduled_id].message.body) if scheduled_id in store.scheduled else None
