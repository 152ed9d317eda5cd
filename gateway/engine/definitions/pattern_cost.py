"""In how many ways can a regular expression try to match a name before it gives up?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import zip_longest

LONGEST = 256
"""A name has at most 255 bytes: so often, and once more, can anything be repeated in it."""
WITHOUT_END = 1 << 64

_COUNTED = re.compile(r"\{(\d*)(,?)(\d*)\}")
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|[0-7]{1,3}|.)", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)
_GROUP = re.compile(r"\?(?::|>|=|!|<=|<!|P<\w+>|([aiLsu]*)(?:-[imsx]+)?([:)]))")
_COMMENT = re.compile(r"\?#[^)]*\)")
_ANCHORS = ("^", "$", r"\A", r"\Z", r"\b", r"\B")


@dataclass(slots=True)
class _Piece:
    """A part of a sequence. ``ways``: in how many ways one of it can match; ``first``: the character that it begins with."""

    text: str
    ways: int = 1
    first: str = ""
    least: int = 1
    most: int = 1
    is_single: bool = True

    @property
    def tries(self) -> int:
        """Return how many ways there are with its repetitions."""
        counts = min(self.most - self.least + 1, LONGEST)
        each: int = self.ways ** min(self.most, LONGEST)
        return min(counts * each, WITHOUT_END)

    def stops_before(self, other: _Piece) -> bool:
        """Say whether what follows can begin nowhere within it: then its repetitions can end in one place only."""
        if not (self.is_single and other.first and other.least):
            return False
        for flags in (re.NOFLAG, re.IGNORECASE, re.DOTALL, re.ASCII):
            if any(re.fullmatch(self.text, c, flags) for c in (other.first, other.first.lower(), other.first.upper())):
                return False
        return True


@dataclass(slots=True)
class _Scan:
    """A pattern, and how much of it was read."""

    pattern: str
    at: int = 0
    pieces: list[_Piece] = field(default_factory=list)

    def taken(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        """Read on, if this comes."""
        found = expression.match(self.pattern, self.at)
        if found is not None:
            self.at = found.end()
        return found


def tries(pattern: str) -> int:
    """Return a bound of the ways in which a search for a pattern can go through one name; `WITHOUT_END` or more: no useful one.

    Args:
        pattern: one that `re` compiles.
    """
    scan = _Scan(pattern)
    alternatives = _alternatives(scan)
    anchored = all(pieces and pieces[0].text in ("^", r"\A") and pieces[0].least for pieces in alternatives)
    for pieces in alternatives:  # what ends a pattern takes what it finds: nothing after it can fail
        if pieces and pieces[-1].ways == 1 and pieces[-1].most > pieces[-1].least:
            pieces[-1].most = pieces[-1].least
    return min(_ways(alternatives) * (1 if anchored else LONGEST), WITHOUT_END)


def _alternatives(scan: _Scan) -> list[list[_Piece]]:
    """Read up to the end of the group, or of the pattern."""
    found: list[list[_Piece]] = [[]]
    while scan.at < len(scan.pattern):
        character = scan.pattern[scan.at]
        if character == ")":
            scan.at += 1
            break
        if character == "|":
            scan.at += 1
            found.append([])
            continue
        piece = _piece(scan)
        if piece is not None:
            _repeat(scan, piece)
            found[-1].append(piece)
    return found


def _piece(scan: _Scan) -> _Piece | None:
    """Read one part, without its repetition; None: a comment, or a flag."""
    start = scan.at
    if scan.pattern[start] == "(":
        return _group(scan)
    escape = scan.taken(_ESCAPE)
    if escape is not None:
        text = escape.group()
        if text in _ANCHORS:
            return _Piece(text, is_single=False, least=1)
        literal = text[1] if len(text) == 2 and not text[1].isalnum() else ""  # noqa: PLR2004
        return _Piece(text, first=literal, is_single=not text[1].isdigit())
    if scan.taken(_CLASS) is not None:
        return _Piece(scan.pattern[start : scan.at])
    scan.at += 1
    text = scan.pattern[start]
    return _Piece(text, first="" if text in ".^$" else text, is_single=text not in _ANCHORS)


def _group(scan: _Scan) -> _Piece | None:
    start = scan.at
    scan.at += 1
    if scan.taken(_COMMENT) is not None:
        return None
    opened = scan.taken(_GROUP)
    if opened is not None and opened.group(2) == ")":
        return None
    if opened is None and scan.pattern.startswith("?", scan.at):  # (?x), (?m), (?(1)...), (?P=name): not looked into
        return _Piece("(?", ways=WITHOUT_END, is_single=False)
    alternatives = _alternatives(scan)
    first = alternatives[0][0].first if len(alternatives) == 1 and alternatives[0] and alternatives[0][0].least else ""
    looks = opened is not None and opened.group() in ("?=", "?!", "?<=", "?<!")
    return _Piece(scan.pattern[start : scan.at], _ways(alternatives), "" if looks else first, is_single=False)


def _repeat(scan: _Scan, piece: _Piece) -> None:
    """Read how often a part may come."""
    character = scan.pattern[scan.at : scan.at + 1]
    counted = _COUNTED.match(scan.pattern, scan.at)
    if character and character in "*+?":
        piece.least, piece.most = {"*": (0, LONGEST), "+": (1, LONGEST), "?": (0, 1)}[character]
        scan.at += 1
    elif counted is not None and counted.group() != "{}":
        least, comma, most = counted.groups()
        piece.least = int(least or "0")
        piece.most = int(most or LONGEST) if comma else piece.least
        scan.at = counted.end()
    else:
        return
    if scan.pattern[scan.at : scan.at + 1] in ("?", "+"):  # lazy, possessive
        scan.at += 1


def _ways(alternatives: list[list[_Piece]]) -> int:
    ways = [_sequence(pieces) for pieces in alternatives]
    firsts = [pieces[0].first.casefold() if pieces and pieces[0].least else "" for pieces in alternatives]
    apart = all(firsts) and len(set(firsts)) == len(firsts)
    return min(max(ways) if apart else sum(ways), WITHOUT_END)


def _sequence(pieces: list[_Piece]) -> int:
    ways = 1
    for piece, follower in zip_longest(pieces, pieces[1:]):
        if piece.ways == 1 and follower is not None and piece.stops_before(follower):
            continue
        ways = min(ways * piece.tries, WITHOUT_END)
    return ways
