"""Which settings are there, and what do a file and ``--set`` make of them?"""

from gateway.config.loading import DEFAULT_FRONT_ENDS, Config, defaults, load
from gateway.config.sections import (
    FLASH_INTERVAL_MS,
    SMALLEST_CAP,
    AdminSettings,
    BrokerSettings,
    JournalSettings,
    Limits,
    LimitSettings,
    LogSettings,
    Pace,
    RetainedSettings,
    Section,
    SecuritySettings,
)
from gateway.config.transports import HostSettings, TlsSettings, Transport

__all__ = [
    "DEFAULT_FRONT_ENDS",
    "FLASH_INTERVAL_MS",
    "SMALLEST_CAP",
    "AdminSettings",
    "BrokerSettings",
    "Config",
    "HostSettings",
    "JournalSettings",
    "LimitSettings",
    "Limits",
    "LogSettings",
    "Pace",
    "RetainedSettings",
    "Section",
    "SecuritySettings",
    "TlsSettings",
    "Transport",
    "defaults",
    "load",
]
