"""What may a front-end use? All of it is here, and nothing else of the gateway is.

`API_VERSION` rises when something is removed; hooks and protocols only gain optional parameters in between.
"""

from gateway.api.address import reachable, tcp_address
from gateway.api.channel import (
    Channel,
    ConsumeOptions,
    Consumer,
    ConsumerSink,
    Delivery,
    LookUp,
    Outcome,
    OutcomeSink,
    QueueInfo,
    Route,
)
from gateway.api.frontend import Authorize, Credentials, Flushable, FrontEnd, Gateway, LetInFirst, Log, Principal, WritesWire
from gateway.api.hooks import API_VERSION, ENTRY_POINT_GROUP, PROJECT, hookimpl, hookspec
from gateway.api.stream import CloseReason, CongestionSink, Connection, Receiver
from gateway.errors import (
    AccessRefused,
    ConfigError,
    GatewayError,
    ListenError,
    MessageRefused,
    NotFound,
    NotSupported,
    Overloaded,
    PreconditionFailed,
    ProtocolViolation,
    ResourceLocked,
)
from gateway.model.arguments import queue_spec
from gateway.model.declare import NEVER, Binding, BindingOptions, ExchangeSpec, Overflow, QueueSpec, Retry
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.message import Address, Message, WireDecoder, with_properties
from gateway.model.names import (
    DEFAULT_EXCHANGE,
    DEFAULT_VHOST,
    TOPIC_EXCHANGE,
    is_mqtt_topic,
    parse_reply_address,
    reply_address,
    swap_key,
    swap_key_bytes,
)
from gateway.model.properties import COMMON, NO_PROPERTIES, Properties, decode_properties, encode_properties
from gateway.model.records import Scheduled

__all__ = [
    "API_VERSION",
    "COMMON",
    "DEFAULT_EXCHANGE",
    "DEFAULT_VHOST",
    "ENTRY_POINT_GROUP",
    "NEVER",
    "NO_PROPERTIES",
    "PROJECT",
    "TOPIC_EXCHANGE",
    "AccessRefused",
    "Address",
    "Authorize",
    "Binding",
    "BindingOptions",
    "Channel",
    "CloseReason",
    "ConfigError",
    "CongestionSink",
    "Connection",
    "ConsumeOptions",
    "Consumer",
    "ConsumerSink",
    "Credentials",
    "Delivery",
    "ExchangeSpec",
    "Flushable",
    "FrontEnd",
    "Gateway",
    "GatewayError",
    "LetInFirst",
    "ListenError",
    "Log",
    "LookUp",
    "Message",
    "MessageRefused",
    "NotFound",
    "NotSupported",
    "Outcome",
    "OutcomeSink",
    "Overflow",
    "Overloaded",
    "PreconditionFailed",
    "Principal",
    "Properties",
    "ProtocolViolation",
    "QueueInfo",
    "QueueSpec",
    "Receiver",
    "ResourceLocked",
    "Retry",
    "Route",
    "Scheduled",
    "WireDecoder",
    "WritesWire",
    "decode_properties",
    "encode_properties",
    "exchange_spec",
    "hookimpl",
    "hookspec",
    "is_mqtt_topic",
    "parse_reply_address",
    "queue_spec",
    "reachable",
    "reply_address",
    "swap_key",
    "swap_key_bytes",
    "tcp_address",
    "with_properties",
]
