"""Is docs/rooms.md true?"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "examples" / "README.md"])


def question(package):
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text())).splitlines()[0]


def test_every_package_is_listed_with_its_question():
    packages = [path.parent for path in sorted([*ROOT.glob("gateway/*/**/__init__.py"), *ROOT.glob("plugins/**/__init__.py")])]
    listed = re.findall(r"^\| `((?:gateway|plugins)/[\w/]+)` \| (.*) \|$", (ROOT / "docs" / "rooms.md").read_text(), re.MULTILINE)
    assert listed == [(str(package.relative_to(ROOT)), question(package)) for package in packages]


def test_every_file_that_a_page_names_is_there():
    for page in PAGES:
        for name in re.findall(r"`((?:gateway|plugins|docs|conf|examples|tests)/[\w./]+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_anchor_of_a_page_is_one_of_its_headings():
    for page in PAGES:
        text = page.read_text()
        headings = {
            re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
