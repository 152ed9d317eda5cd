"""What went wrong with a ZeroMQ socket, in words?"""

from __future__ import annotations


class AddressRefused(OSError):
    """An address can't be bound, connected to, or given up. ``errno`` says why, as libzmq does."""


class TooManySockets(OSError):
    """The context, or the process, has no room for one more."""


class UnknownPeer(LookupError):
    """A ROUTER socket was told to send to a peer that it doesn't know, or that has gone. Nothing was sent."""


class OutOfTurn(RuntimeError):
    """A REQ or REP socket was used in another order than question, answer, question, answer."""


class ForeignUse(RuntimeError):
    """A context or a socket was used in another thread, another ``trio.run``, or another process, than it was made in."""
