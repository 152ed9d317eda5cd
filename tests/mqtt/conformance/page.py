"""Which line obeys which normative statement, and which test proves it? Writes docs/conformance.md from the code and the tests."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.mqtt.conformance.statements import TITLES, Statement, statements

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "conformance.md"
SOURCES = ("gateway", "plugins")
LIST = statements()
_TAG = re.compile(r"\[(MQTT5?-\d+\.\d+\.\d+-\d+)\]")
_NAME = re.compile(r"(?:\b|_)mqtt(5?)_(\d+)_(\d+)_(\d+)_(\d+)(?=_|\b)")

_HEAD = """\
# Conformance

Every normative statement of MQTT 3.1.1 and MQTT 5.0, in words of ours, with the code that obeys it and the tests that prove it.
The numbers are those of the standards' appendix B. Written by `make conformance` from the tags in the code (`[MQTT-3.1.0-2]` is a
statement of MQTT 3.1.1, `[MQTT5-3.1.0-2]` one of MQTT 5.0) and from the names and tags of the tests.

"client": the statement binds clients only; where there is a test, it shows what the broker does with a client that breaks it.
A statement of MQTT 5.0 that MQTT 3.1.1 makes as well is obeyed by the same lines. Where no line carries a tag, the list of
statements (`tests/mqtt/conformance/*.toml`) names the place.
"""


class Places:
    """Where the tags stand: tag -> places, each a file and the function or name that holds it."""

    def __init__(self) -> None:
        self.code: dict[str, list[str]] = defaultdict(list)
        self.tests: dict[str, list[str]] = defaultdict(list)

    @classmethod
    def found(cls) -> Places:
        """Look through all code and all tests."""
        places = cls()
        for folder in SOURCES:
            for path in sorted((ROOT / folder).rglob("*.py")):
                _note(places.code, path, path.relative_to(ROOT).as_posix().removeprefix("plugins/"))
        for path in sorted((ROOT / "tests").rglob("test_*.py")):
            _note(places.tests, path, path.relative_to(ROOT / "tests").as_posix())
        return places

    def code_of(self, statement: Statement) -> list[str]:
        like = self.code.get(f"MQTT-{statement.like}", []) if statement.like else []
        known = [*self.code.get(statement.tag, []), *like]
        named = statement.code or (LIST[f"MQTT-{statement.like}"].code if statement.like else "")
        return _once(known or ([_place(*named.split(":"))] if named else []))

    @staticmethod
    def has(name: str, symbol: str) -> bool:
        """Return whether that file of the code has that symbol."""
        path = ROOT / (name if name.startswith("gateway/") else f"plugins/{name}")
        return path.exists() and any(known == symbol for _, _, known in _symbols(ast.parse(path.read_text(encoding="utf-8"))))

    def tests_of(self, statement: Statement) -> list[str]:
        return _once(self.tests.get(statement.tag, []))


def _place(name: str, symbol: str) -> str:
    return f"`{name}` `{symbol}`" if symbol else f"`{name}`"


def _once(places: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(places))


def _note(places: dict[str, list[str]], path: Path, name: str) -> None:
    text = path.read_text(encoding="utf-8")
    tags = [(number, tag) for number, line in enumerate(text.splitlines(), 1) for tag in _tags(line)]
    if tags:
        symbols = list(_symbols(ast.parse(text)))
        for number, tag in tags:
            places[tag].append(_place(name, _symbol_at(number, symbols)))


def _tags(line: str) -> Iterator[str]:
    yield from _TAG.findall(line)
    for series, *numbers in _NAME.findall(line):
        yield f"MQTT{series}-{'.'.join(numbers[:3])}-{numbers[3]}"


def _symbols(tree: ast.AST, above: str = "") -> Iterator[tuple[int, int, str]]:
    """Yield (first line, last line, name) of every function, class and assignment; inner ones later."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield first, node.end_lineno or first, above + node.name
            yield from _symbols(node, f"{above}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not above:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                yield node.lineno, node.end_lineno or node.lineno, target.id


def _symbol_at(line: int, symbols: list[tuple[int, int, str]]) -> str:
    """Return the innermost symbol; a comment between two belongs to the one below."""
    inside = [name for first, last, name in symbols if first <= line <= last]
    if inside:
        return inside[-1]
    return next((name for first, _, name in symbols if first > line), "")


def lacking(places: Places) -> dict[str, list[str]]:
    """Return the tags that bind a server and have no code, or no test."""
    ours = [statement for statement in LIST.values() if statement.binds_us]
    return {
        "code": [statement.tag for statement in ours if not places.code_of(statement)],
        "test": [statement.tag for statement in ours if not places.tests_of(statement)],
    }


def page(places: Places) -> str:
    """Return docs/conformance.md."""
    parts = [_HEAD]
    for series, title in TITLES.items():
        listed = [statement for statement in LIST.values() if statement.series == series]
        parts += [f"\n## {title}\n\n{_summary(listed, places)}\n"]
        parts += ["| statement | whom it binds | in short | code | tests |", "|---|---|---|---|---|"]
        parts += [_row(statement, places) for statement in listed]
    return "\n".join(parts) + "\n"


def _summary(listed: list[Statement], places: Places) -> str:
    ours = [statement for statement in listed if statement.binds_us]
    tested = sum(bool(places.tests_of(statement)) for statement in ours)
    coded = sum(bool(places.code_of(statement)) for statement in ours)
    return f"{len(listed)} statements; {len(ours)} bind this broker: {coded} have a line of code, {tested} have a test."


def _row(statement: Statement, places: Places) -> str:
    code, tests = places.code_of(statement), places.tests_of(statement)
    absent = f"not here: {statement.not_here}" if statement.not_here else "**none**" if statement.binds_us else ""
    cells = (statement.tag, statement.who, statement.says, "<br>".join(code) or absent, "<br>".join(tests) or absent)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write the page; say what is lacking."""
    places = Places.found()
    PAGE.write_text(page(places), encoding="utf-8")
    for what, tags in lacking(places).items():
        if tags:
            sys.stdout.write(f"without {what}: {' '.join(tags)}\n")


if __name__ == "__main__":
    main()
