"""What do the standards of MQTT demand, and of whom?"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FILES = {"MQTT": HERE / "mqtt_3_1_1.toml", "MQTT5": HERE / "mqtt_5_0.toml"}
TITLES = {"MQTT": "MQTT 3.1.1", "MQTT5": "MQTT 5.0"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One normative statement; `says` is a summary, not the standard's sentence."""

    series: str
    number: str
    who: str
    says: str
    like: str = ""
    not_here: str = ""
    code: str = ""

    @property
    def tag(self) -> str:
        return f"{self.series}-{self.number}"

    @property
    def chapter(self) -> str:
        return self.number.partition("-")[0]

    @property
    def binds_us(self) -> bool:
        return self.who != "client" and not self.not_here


def statements() -> dict[str, Statement]:
    """Return all, by tag, in the order of the standards."""
    found = {}
    for series, path in FILES.items():
        for number, fields in tomllib.loads(path.read_text(encoding="utf-8")).items():
            statement = Statement(series, number, **fields)
            found[statement.tag] = statement
    return dict(sorted(found.items(), key=lambda item: _order(item[1])))


def _order(statement: Statement) -> tuple[str, list[int]]:
    return statement.series, [int(number) for number in re.split(r"[.-]", statement.number)]
