"""How does hypothesis work in every test?"""

import os

from hypothesis import Phase, settings

# How long one example takes says more of the machine's load than of the code. In CI the examples are the same each time, and one
# that fails is told as it is: to make it smaller takes minutes, and is done where somebody looks at it.
CI = bool(os.environ.get("CI"))
PHASES = (Phase.explicit, Phase.reuse, Phase.generate) if CI else tuple(Phase)
settings.register_profile("tidegate", deadline=None, derandomize=CI, phases=PHASES)
settings.load_profile("tidegate")
