"""Which commands does the ZeroMQ plugin add?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway_zeromq.security.keys import write_pair
from gateway_zeromq.security.passwords import hash_of

_USAGE = 2
_FAILED = 73

app = typer.Typer()


@app.command("curve-keygen")
def curve_keygen(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Whose key: NAME.key_secret and NAME.key are written. A client's name is its user."),
    ],
    directory: Annotated[Path, typer.Option("-d", "--directory", help="Where to.")] = Path(),
) -> None:
    """Make a CURVE key pair for ZeroMQ: NAME.key_secret, which nobody else may read, and NAME.key, for the others.

    The files have the form of CZMQ's and pyzmq's certificates. Files that are there are never written over.
    """
    try:
        secret, public = write_pair(directory, name)
    except ValueError as error:
        raise _ended(str(error), _USAGE) from error
    except FileExistsError as error:
        raise _ended(
            f"{error.filename} is there already: nothing was written. Choose another name, or move it away", _FAILED
        ) from error
    except OSError as error:
        raise _ended(f"{error.filename or directory}: {(error.strerror or str(error)).lower()}", _FAILED) from error
    typer.echo(f"{secret}: keep it secret")
    typer.echo(f"{public}: give it to those who shall know {name}")


@app.command("password-hash")
def password_hash() -> None:
    """Ask for a password, or read it from standard input's first line, and print its argon2 hash, for `users` of an endpoint."""
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise _ended("there is no password", _USAGE)
    typer.echo(hash_of(password))


def _ended(text: str, code: int) -> typer.Exit:
    typer.echo(f"tidegate: {text}", err=True)
    return typer.Exit(code)
