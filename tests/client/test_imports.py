"""Does the client stand alone?"""

import ast
from pathlib import Path

import gateway.client

ALLOWED = ("gateway.client", "msgspec", "zmq")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_client_imports_nothing_else_of_the_gateway():
    import sys

    for path in Path(gateway.client.__file__).parent.glob("*.py"):
        for name in imported(path):
            top = name.partition(".")[0]
            assert name.startswith(ALLOWED) or top in sys.stdlib_module_names, f"{path.name} imports {name}"
