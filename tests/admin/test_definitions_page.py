"""Does docs/definitions.md name what there is?"""

import re
from pathlib import Path

import pytest

from gateway.admin.where import MAX_DEFINITIONS_BYTES
from gateway.engine.definitions.policy import APPLY_TO, KEYS, MAX_PATTERN_BYTES, OPERATOR_KEYS
from gateway.model.declare import Overflow
from gateway.routing.table import TYPES

PAGE = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text(encoding="utf-8")


def test_the_table_of_keys_has_all_and_no_other():
    table = PAGE[PAGE.index("| key | |") :]
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == sorted(KEYS)


def test_operator_policies_have_the_keys_that_are_listed():
    said = PAGE[PAGE.index("An operator policy bounds") : PAGE.index("- Setting or clearing")]
    assert re.findall(r"`([\w-]+)`", said) == list(OPERATOR_KEYS)


@pytest.mark.parametrize("word", [*APPLY_TO, *(overflow.value for overflow in Overflow)])
def test_every_word_that_can_be_written_is_named(word):
    assert f"`{word}`" in PAGE


def test_every_type_of_exchange_is_named():
    (row,) = re.findall(r"^\| `exchanges` \| (.*) \|$", PAGE, re.MULTILINE)
    assert all(name in row for name in [*TYPES, "x-delayed-message"])


def test_limits_are_as_said():
    assert f"at most {MAX_PATTERN_BYTES:,} bytes" in PAGE
    assert f"up to {MAX_DEFINITIONS_BYTES >> 20} MiB" in PAGE
