"""Which settings does the ZeroMQ front-end have?"""

from gateway_zeromq.settings.common import OFF, SETTING, Endpoint
from gateway_zeromq.settings.dealer import DealerEndpoint
from gateway_zeromq.settings.publish import PubEndpoint, PublishingEndpoint, XpubEndpoint
from gateway_zeromq.settings.pull import PullEndpoint
from gateway_zeromq.settings.push import PushEndpoint
from gateway_zeromq.settings.rep import RepEndpoint
from gateway_zeromq.settings.router import RouterEndpoint
from gateway_zeromq.settings.subscribe import SubEndpoint, XsubEndpoint
from gateway_zeromq.settings.whole import AnyEndpoint, ZeroMqSettings

__all__ = [
    "OFF",
    "SETTING",
    "AnyEndpoint",
    "DealerEndpoint",
    "Endpoint",
    "PubEndpoint",
    "PublishingEndpoint",
    "PullEndpoint",
    "PushEndpoint",
    "RepEndpoint",
    "RouterEndpoint",
    "SubEndpoint",
    "XpubEndpoint",
    "XsubEndpoint",
    "ZeroMqSettings",
]
