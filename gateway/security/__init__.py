"""Who is let in, and as whom?"""

from gateway.security.authentication import Authentication, anonymous_access, check_standing
from gateway.security.reach import is_local

__all__ = ["Authentication", "anonymous_access", "check_standing", "is_local"]
