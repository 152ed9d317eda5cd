"""Are the written settings the settings?"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from gateway.cli.reference import bundled, page, tables, toml, toml_file
from gateway.complaint import models_in
from gateway.config import DEFAULT_FRONT_ENDS, Config, HostSettings, TlsSettings, defaults, load

ROOT = Path(__file__).parents[2]
FILE = ROOT / "conf/tidegate.toml"
OUTDATED = "`make reference` writes it again"


def models():
    core = dict(defaults())
    front_ends = {f"frontend.{name}": model for name, model in bundled().items()}
    return core | front_ends


def keys(model: type[BaseModel], at: str):
    for name, field in model.model_fields.items():
        yield f"{at}.{name}"
        for inner in models_in(field.annotation):
            yield from keys(inner, f"{at}.{name}")


def written_keys() -> set[str]:
    """Every key of the file, read line by line: also those that are commented out because they have no default."""
    found, table = set(), ""
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"(?:# Keys of each )?\[+([\w.]+)\]+:?", line):
            table = header[1]
            found.add(table)
        elif key := re.match(r"(?:# {3}|# )?(\w+) =", line):
            found.add(f"{table}.{key[1]}")
    return found


def test_all_bundled_front_ends_are_in_the_reference():
    assert set(bundled()) == set(DEFAULT_FRONT_ENDS)


def test_the_file_is_as_it_would_be_written_now():
    assert FILE.read_text(encoding="utf-8") == toml_file(bundled()), OUTDATED


def test_the_page_is_as_it_would_be_written_now():
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == page(bundled()), OUTDATED


def test_the_file_holds_every_key_and_no_other():
    expected = {key for name, model in models().items() for key in (name, *keys(model, name))}
    enabled = {f"frontend.{name}.enabled" for name in bundled()}
    streams = ("mqtt", "amqp")
    transports = {f"frontend.{front_end}.{name}" for front_end in streams for name in HostSettings.model_fields}
    certificates = {f"frontend.{front_end}.tls.{name}" for front_end in streams for name in TlsSettings.model_fields}
    assert written_keys() == expected | enabled | transports | certificates


def test_what_the_file_says_is_what_holds_without_a_file():
    config = load(FILE)
    assert config.model_copy(update={"frontend": {}}) == Config()
    for name, model in bundled().items():
        assert config.enabled(name) is Config().enabled(name) is True
        assert config.validated_front_end(name, model) == model()


@pytest.mark.parametrize("name", models())
def test_every_setting_says_what_it_means(name):
    for key, field in models()[name].model_fields.items():
        if list(models_in(field.annotation)):
            continue
        assert field.description, f"{name}.{key} has no description"
        assert field.description.endswith("."), f"{name}.{key}: a sentence"


def test_every_setting_of_the_host_says_what_it_means():
    fields = {name: field for name, field in HostSettings.model_fields.items() if name != "tls"}
    assert [name for name, field in fields.items() if not (field.description or "").endswith(".")] == []


def test_every_number_of_the_core_has_a_unit():
    settings = [setting for table in tables({}) for setting in table.settings]
    numbers = [setting for setting in settings if re.fullmatch(r"[\d.]+", setting.default)]
    assert len(numbers) > 5
    assert [setting.name for setting in numbers if not setting.unit] == []


class Endpoint(BaseModel):
    name: str = Field(description="A name.")
    rate_s: float = Field(default=1.5, gt=0, description="Pace.")


class Sample(BaseModel):
    """A sample."""

    endpoint: list[Endpoint] = Field(default=[Endpoint(name="a"), Endpoint(name="b", rate_s=2.0)], description="Endpoints.")
    title: str | None = Field(default=None, description="A title.")


def test_a_list_of_tables_is_written_with_its_default_elements_and_the_keys_of_each():
    text = toml_file({"sample": Sample})
    read = tomllib.loads(text)["frontend"]["sample"]
    own = HostSettings().model_dump(exclude={"tls"}) | {"tls": {}}
    assert read == own | {"endpoint": [{"name": "a"}, {"name": "b", "rate_s": 2.0}]}
    assert "#   name = ...  # A name.\n#   rate_s = 1.5  # Pace. Unit: seconds. Allowed: more than 0.\n" in text
    assert "# A title.\n# title =\n" in text


@pytest.mark.parametrize("value", [True, 5, 1.5, 'quo"te\n\\', "ü", ["a", ["b"]], {"x": {"y": [1]}}, []])
def test_values_are_written_as_toml(value):
    assert tomllib.loads(f"v = {toml(value)}")["v"] == value
