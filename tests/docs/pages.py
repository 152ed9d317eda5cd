"""How do tests get at the programs and configurations of a page?"""

import re
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read(page):
    """Return a page's text, and the function that returns the fenced block behind the comment `<!-- name -->` there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return text, partial(_block, text)


def _block(text, name):
    (block,) = re.findall(rf"^<!-- {name} -->\n```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return block
