"""Who is let in, and as whom?"""

from gateway.security.authentication import Authentication
from gateway.security.reach import is_local

__all__ = ["Authentication", "is_local"]
