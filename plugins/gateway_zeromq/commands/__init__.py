"""What do `tidegate curve-keygen` and `tidegate password-hash` do?"""

from gateway_zeromq.commands.app import app

__all__ = ["app"]
