"""What asks for much with few bytes: others have their turns."""

from __future__ import annotations

from gateway.runtime.streams.pace import FASTEST, FIRST_PACE, SIZES, next_pace


def test_a_peer_whose_packets_take_long_is_read_from_in_small_pieces_until_they_do_not():
    pace = FIRST_PACE
    for _ in range(5):
        pace = next_pace(pace, 0.1, full=True)
    assert SIZES[pace] == 256
    for _ in range(20):
        pace = next_pace(pace, 0.001, full=True)
    assert pace == FASTEST
    assert SIZES[pace] == 65_536


def test_it_is_not_read_faster_as_long_as_little_comes_or_it_takes_its_time():
    assert next_pace(3, 0.001, full=False) == 3
    assert next_pace(3, 0.01, full=True) == 3
