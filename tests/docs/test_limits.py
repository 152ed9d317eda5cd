"""Does docs/limits.md name what is counted and what can be set?"""

import re
from pathlib import Path

from gateway.config import JournalSettings, LimitSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")


def test_every_counter_that_the_page_names_is_counted_somewhere():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    named = set(re.findall(r"`((?:dropped|refused|alarms)\.[a-z_ ]+[a-z])`", PAGE))
    assert len(named) > 10
    for name in sorted(named):
        reason = name.partition(".")[2]
        assert f'"{reason}"' in source or f'"{name}"' in source, name


def test_every_setting_that_the_page_names_is_one():
    for section, model in (("limits", LimitSettings), ("journal", JournalSettings)):
        for name in re.findall(rf"`{section}\.([a-z_]+)`", PAGE):
            assert name in model.model_fields, name
