"""Which settings do patterns of names give to queues and exchanges, beside what they were declared with?"""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gateway.engine.definitions.pattern_cost import tries
from gateway.engine.queues.terms import Terms
from gateway.errors import JournalError, NotFound, PreconditionFailed
from gateway.model.arguments import POLICY_KEYS, RETRY_ARGUMENTS, read_retry
from gateway.model.declare import ExchangeSpec, QueueSpec
from gateway.model.records import StatePut
from gateway.routing.exchange import encoded_length
from gateway.routing.table import Exchange

if TYPE_CHECKING:
    from gateway.engine.engine import Engine

NAMESPACE = "policy"
"""Of the records that keep policies: key ``vhost NUL kind NUL name``, value JSON."""

APPLY_TO = ("all", "queues", "classic_queues", "quorum_queues", "exchanges")
ALTERNATE = "alternate-exchange"
RETRY_KEYS = tuple(argument.removeprefix("x-") for argument in RETRY_ARGUMENTS)

WITHOUT_MEANING = frozenset((
    "ha-mode", "ha-params", "ha-sync-mode", "ha-sync-batch-size", "ha-promote-on-shutdown", "ha-promote-on-failure",
    "queue-mode", "queue-version", "queue-leader-locator", "queue-master-locator", "initial-cluster-size", "target-group-size",
    "max-in-memory-length", "max-in-memory-bytes", "dead-letter-strategy",
))  # fmt: skip
"""What RabbitMQ knows and what is so anyway, or can't matter, on one node."""

NOT_SUPPORTED = frozenset((
    "federation-upstream", "federation-upstream-set", "federation-upstream-pattern", "max-age", "max-segment-size",
    "stream-max-segment-size-bytes", "stream-filter-size-bytes",
))  # fmt: skip
"""What RabbitMQ knows and nothing here does. Kept and listed, as the keys above are; `Policy.ignored` names them."""

KEYS = (*POLICY_KEYS, *RETRY_KEYS, ALTERNATE)
OPERATOR_KEYS = ("expires", "message-ttl", "max-length", "max-length-bytes", "delivery-limit", "consumer-timeout")
"""What an operator policy may say: a bound that lowers what queue and policy say."""

MAX_PATTERN_BYTES = 1024
MOST_TRIES = 1 << 24
"""In so many ways a search may go through a name: three times anything anywhere, half a second for the worst name."""
MAX_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings for all queues, or exchanges, whose name matches.

    Args:
        name: what it is set and deleted by.
        pattern: a regular expression (Python's `re`), searched in the name: ``^`` and ``$`` anchor it.
        definition: the settings; `KEYS`, and what is kept without effect.
        apply_to: one of `APPLY_TO`. ``quorum_queues`` are those declared with ``x-queue-type`` quorum; ``classic_queues`` the
            others.
        priority: of all that match the highest holds; between equals the name that sorts first. There is one for a queue.
        operator: it bounds what queues and their policies say (RabbitMQ's operator policies).

    Attributes:
        terms: attribute of `QueueSpec` -> value.
        ignored: keys of the definition that have no effect here.

    Raises:
        PreconditionFailed: the pattern is no regular expression, a key is unknown, a value can't be.
    """

    name: str
    pattern: str
    definition: Mapping[str, Any]
    apply_to: str = "all"
    priority: int = 0
    operator: bool = False
    terms: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    ignored: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _search: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check everything, and read the definition once."""
        _check_name(self.name)
        if self.apply_to not in APPLY_TO:
            raise PreconditionFailed(f"policy {self.name!r}: apply-to must be one of {', '.join(APPLY_TO)}, not {self.apply_to!r}")
        if self.operator and self.apply_to == "exchanges":
            raise PreconditionFailed(f"operator policy {self.name!r}: it bounds queues, so apply-to can't be 'exchanges'")
        if not self.definition:
            raise PreconditionFailed(f"policy {self.name!r}: definition must be an object with at least one of {', '.join(KEYS)}")
        object.__setattr__(self, "_search", _compiled(self.name, self.pattern))
        object.__setattr__(self, "terms", _terms(self))
        ignored = tuple(key for key in self.definition if key in WITHOUT_MEANING or key in NOT_SUPPORTED)
        object.__setattr__(self, "ignored", ignored)

    def matches_queue(self, spec: QueueSpec) -> bool:
        """Say whether it is for this queue."""
        match self.apply_to:
            case "exchanges":
                return False
            case "quorum_queues" | "classic_queues":
                is_quorum = spec.arguments.get("x-queue-type") == "quorum"
                return is_quorum is (self.apply_to == "quorum_queues") and self._search.search(spec.name) is not None
            case _:
                return self._search.search(spec.name) is not None

    def matches_exchange(self, name: str) -> bool:
        """Say whether it is for this exchange."""
        return self.apply_to in ("all", "exchanges") and self._search.search(name) is not None

    def text(self) -> str:
        """Return it as the JSON that is kept; the name is in the key."""
        values = {"pattern": self.pattern, "apply-to": self.apply_to, "priority": self.priority, "definition": {**self.definition}}
        return json.dumps(values, separators=(",", ":"))


def _check_name(name: str) -> None:
    if not name or "\0" in name or encoded_length(name) > MAX_NAME_BYTES:
        raise PreconditionFailed(f"the name of a policy is text of 1 to {MAX_NAME_BYTES} bytes without NUL, not {name!r}")


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    if encoded_length(pattern) > MAX_PATTERN_BYTES:
        raise PreconditionFailed(f"policy {name!r}: a pattern has at most {MAX_PATTERN_BYTES} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python reads otherwise than others do: [[:alpha:]]
            compiled = re.compile(pattern)
    except (re.error, FutureWarning, DeprecationWarning, OverflowError, RecursionError) as error:
        raise PreconditionFailed(f"policy {name!r}: pattern {pattern!r} is no regular expression: {error}") from error
    if tries(pattern) > MOST_TRIES:
        raise PreconditionFailed(
            f"policy {name!r}: pattern {pattern!r} could be searched for in too many ways, and hold up everybody:"
            " repeat nothing that has repetitions or equal alternatives in it, begin with ^, and use few * and +"
        )
    return compiled


def _terms(policy: Policy) -> Mapping[str, Any]:
    """Read a definition. Raises PreconditionFailed."""
    terms: dict[str, Any] = {}
    for key, value in policy.definition.items():
        _check_key(policy, key)
        if key in POLICY_KEYS:
            attribute, read = POLICY_KEYS[key]
            terms[attribute] = read(key, value)
        elif key == ALTERNATE and not isinstance(value, str):
            raise PreconditionFailed(f"policy {policy.name!r}: {ALTERNATE} must be the name of an exchange, not {value!r}")
    retry = read_retry(policy.definition, prefix="")
    if retry is not None:
        terms["retry"] = retry
    return MappingProxyType(terms)


def _check_key(policy: Policy, key: str) -> None:
    if key in WITHOUT_MEANING or key in NOT_SUPPORTED:
        return
    allowed = OPERATOR_KEYS if policy.operator else KEYS
    if key not in allowed:
        near = difflib.get_close_matches(str(key).removeprefix("x-"), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        kind = "an operator policy" if policy.operator else "a policy"
        raise PreconditionFailed(f"policy {policy.name!r}: {key!r} is no key of {kind}{hint} Allowed: {', '.join(allowed)}")


class Policies:
    """The policies of all virtual hosts, and what they make of queues and exchanges.

    Args:
        engine: whose queues and exchanges follow them.
    """

    __slots__ = ("_engine", "_operator", "_policies")

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        # By virtual host, in the order in which they are tried.
        self._policies: dict[str, list[Policy]] = {}
        self._operator: dict[str, list[Policy]] = {}

    def set(self, vhost: str, policy: Policy) -> None:
        """Set a policy, in the place of one of its name; it holds for what exists at once.

        Raises:
            GatewayError: the journal can't take it now; nothing has changed.
        Cost: its pattern is searched in the name of every queue and exchange of the virtual host (about 0.3 us each); those that
            it matches, or did before, get their terms anew.
        """
        self._check_journal()
        self._record(vhost, policy, policy.text().encode())
        self._put(vhost, policy)

    def delete(self, vhost: str, name: str, *, operator: bool = False) -> None:
        """Delete a policy.

        Raises:
            NotFound: there is none of that name. GatewayError: as of `set`.
        Cost: as of `set`.
        """
        policy = self.find(vhost, name, operator=operator)
        if policy is None:
            raise NotFound(f"no {'operator ' if operator else ''}policy {name!r} in vhost {vhost!r}")
        self._check_journal()
        self._record(vhost, policy, None)
        self._side(operator)[vhost].remove(policy)
        self._apply(vhost, [policy])

    def find(self, vhost: str, name: str, *, operator: bool = False) -> Policy | None:
        """Return a policy; None: there is none of that name."""
        return next((policy for policy in self._side(operator).get(vhost, ()) if policy.name == name), None)

    def listed(self, vhost: str) -> list[Policy]:
        """Return policies, then operator policies, each in the order in which they are tried."""
        return [*self._policies.get(vhost, ()), *self._operator.get(vhost, ())]

    # -- what they say ------------------------------------------------------

    def policy_of(self, vhost: str, spec: QueueSpec, *, operator: bool = False) -> Policy | None:
        """Return the one policy that holds for a queue. Cost: the policies of the virtual host."""
        return next((policy for policy in self._side(operator).get(vhost, ()) if policy.matches_queue(spec)), None)

    def terms(self, vhost: str, spec: QueueSpec) -> Terms:
        """Return what holds for a queue: its own arguments, its policy, its operator policy. Cost: as of `policy_of`."""
        policy = self.policy_of(vhost, spec)
        operator = self.policy_of(vhost, spec, operator=True)
        return Terms.of(spec, policy.terms if policy is not None else None, operator.terms if operator is not None else None)

    def alternate(self, vhost: str, spec: ExchangeSpec) -> str | None:
        """Return an exchange's alternate: its own, or its policy's. Cost: the policies of the virtual host."""
        if spec.alternate is not None or not spec.name:
            return spec.alternate
        policy = next((policy for policy in self._policies.get(vhost, ()) if policy.matches_exchange(spec.name)), None)
        return policy.definition.get(ALTERNATE) if policy is not None else None

    def declared(self, vhost: str, exchange: Exchange) -> None:
        """Give an exchange that was just declared what its policy says."""
        exchange.alternate = self.alternate(vhost, exchange.spec)

    # -- change -------------------------------------------------------------

    def replay(self, record: StatePut) -> None:
        """Take a policy that the journal kept, after the queues and exchanges.

        Raises:
            JournalError: this version does not understand it.
        """
        if record.value is None:
            return
        vhost, kind, name = record.key.rsplit("\0", 2)
        try:
            self._put(vhost, parse(name, json.loads(record.value), operator=kind == "operator"))
        except (PreconditionFailed, ValueError) as error:
            raise JournalError(f"the journal has a policy {name!r} that this version does not understand: {error}") from error

    def _side(self, operator: bool) -> dict[str, list[Policy]]:
        return self._operator if operator else self._policies

    def _put(self, vhost: str, policy: Policy) -> None:
        policies = self._side(policy.operator).setdefault(vhost, [])
        former = self.find(vhost, policy.name, operator=policy.operator)
        if former is not None:
            policies.remove(former)
        policies.append(policy)
        policies.sort(key=lambda each: (-each.priority, each.name))
        self._apply(vhost, [policy] if former is None else [policy, former])

    def _apply(self, vhost: str, changed: Iterable[Policy]) -> None:
        """Let what is matched by what changed have its terms anew."""
        host = self._engine.vhost(vhost)
        for queue in list(host.queues.values()):
            if not queue.deleted and any(policy.matches_queue(queue.spec) for policy in changed):
                queue.apply(self.terms(vhost, queue.spec))
        for exchange in host.table:
            exchange.alternate = self.alternate(vhost, exchange.spec)
        self._engine.generation += 1

    def _check_journal(self) -> None:
        if self._engine.refusal is not None:
            raise self._engine.refusal

    def _record(self, vhost: str, policy: Policy, value: bytes | None) -> None:
        key = f"{vhost}\0{'operator' if policy.operator else 'policy'}\0{policy.name}"
        self._engine.batch.records.append(StatePut(NAMESPACE, key, value))


_FIELDS: Mapping[str, tuple[type, str]] = {
    "pattern": (str, "text"),
    "definition": (dict, "an object"),
    "apply-to": (str, "text"),
    "priority": (int, "an integer"),
}


def parse(name: str, values: Mapping[str, Any], *, operator: bool = False) -> Policy:
    """Make a policy of its fields as RabbitMQ names them: ``pattern``, ``definition``, ``apply-to`` and ``priority``.

    Raises:
        PreconditionFailed: a field is missing, unknown or of another kind, or as of `Policy`.
    """
    for key, value in values.items():
        if key not in _FIELDS:
            raise PreconditionFailed(f"policy {name!r}: {key!r} is no field of a policy. Allowed: {', '.join(_FIELDS)}")
        kind, said = _FIELDS[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise PreconditionFailed(f"policy {name!r}: {key} must be {said}, not {value!r}")
    if "pattern" not in values or "definition" not in values:
        raise PreconditionFailed(f"policy {name!r}: pattern and definition are needed")
    apply_to = values.get("apply-to", "queues" if operator else "all")
    return Policy(name, values["pattern"], values["definition"], apply_to, values.get("priority", 0), operator)
