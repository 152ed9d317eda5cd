"""How does hypothesis work in every test?"""

import os

from hypothesis import settings

# How long one example takes says more of the machine's load than of the code. In CI the examples are the same each time.
settings.register_profile("tidegate", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tidegate")
