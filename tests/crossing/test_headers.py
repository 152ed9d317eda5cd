"""Does what is said by any protocol come by any other as the table of docs/bridging.md says?"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crossing.peers import ENDPOINTS, World, all_peers
from tests.crossing.sayings import SAYINGS
from tests.crossing.table import BEGIN, END, GIVEN, PAGE, PROTOCOLS, TABLE, heard_of, is_text_of, known_of, rendered

A_WHILE_MS = 60_000
_checks = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@pytest.fixture(scope="module")
def world():
    with World(ENDPOINTS, all_peers()) as running:
        yield running


def compare(where, found, expected):
    """What counts down may have counted down a while; all else is as expected."""
    left, said = found.pop("expiration_ms", None), expected.pop("expiration_ms")
    assert (left is None) == (said is None), where
    assert left is None or said - A_WHILE_MS <= left <= said, where
    assert found == {row: expected[row] for row in found}, where
    assert all(value is None for row, value in expected.items() if row not in found), where


def cross(world, publisher, said):
    """Have something said once, and heard by all."""
    common = world.run(world.say, publisher, said)
    for row, cells in TABLE.items():
        if cells[publisher].says is GIVEN:
            assert isinstance(common[row], str)
            said["given"][row] = common[row]
    known = known_of(publisher, said)
    expected = {consumer: heard_of(consumer, known) for consumer in PROTOCOLS}
    is_text = is_text_of("content_encoding", known)
    heard = {consumer: world.run(world.hear, consumer, {**expected[consumer], "is_text": is_text}) for consumer in PROTOCOLS}
    compare(f"{publisher}: in the common model", common, {row: known[row] for row in TABLE})
    for consumer in PROTOCOLS:
        compare(f"{publisher} -> {consumer}", heard[consumer], expected[consumer])


@pytest.mark.parametrize("publisher", PROTOCOLS)
def test_what_one_says_all_others_hear_as_the_table_says(world, publisher):
    @settings(max_examples=25, deadline=None, suppress_health_check=_checks, database=None)
    @given(SAYINGS[publisher])
    def check(said):
        cross(world, publisher, said)

    check()


@pytest.mark.slow
@given(st.data())
@settings(max_examples=600, deadline=None, suppress_health_check=_checks)
def test_what_any_says_all_others_hear_as_the_table_says(world, data):
    publisher = data.draw(st.sampled_from(PROTOCOLS))
    cross(world, publisher, data.draw(SAYINGS[publisher]))


def test_every_row_has_a_cell_for_each_protocol():
    assert all(tuple(sorted(cells)) == tuple(sorted(PROTOCOLS)) for cells in TABLE.values())


def test_the_page_has_the_table_that_is_tested():
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    assert rest.partition(END)[0] == rendered(), "run python -m tests.crossing.table"
