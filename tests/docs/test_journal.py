"""Does docs/journal.md describe the schema as it is?"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.journal.sqlite import SqliteJournal

PAGE = (Path(__file__).parents[2] / "docs" / "journal.md").read_text(encoding="utf-8")


def test_the_page_names_every_table_view_and_column(tmp_path):
    journal = SqliteJournal(tmp_path)
    journal.open()
    journal.close()
    described = {match[1]: match[2] for match in re.finditer(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)}
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        names = [n for (n,) in connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
        names = [name for name in names if not name.endswith("_commit") and not name.startswith("sqlite_")]
        assert sorted(described) == sorted(names)
        for name in names:
            for _, column, *_ in connection.execute(f"PRAGMA table_info({name})"):
                assert f"`{column}`" in described[name], f"{name}.{column}"
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert f"**Format {version}**" in PAGE
