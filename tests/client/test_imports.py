"""Does the client stand alone?"""

import ast
import subprocess
import sys
from pathlib import Path

import gateway.client

ALLOWED = ("gateway.client", "msgspec", "zmq")
WITH_TRIO = {"awaited.py", "on_trio.py", "trio_link.py"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_client_imports_nothing_else_of_the_gateway():
    for path in Path(gateway.client.__file__).parent.glob("*.py"):
        for name in imported(path):
            top = name.partition(".")[0]
            allowed = (*ALLOWED, "trio") if path.name in WITH_TRIO else ALLOWED
            assert name.startswith(allowed) or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_who_does_not_ask_for_trio_does_not_need_it():
    code = "import sys, gateway.client; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
