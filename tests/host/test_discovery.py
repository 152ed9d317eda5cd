"""Are plugins found, and are broken ones named and left out?"""

from __future__ import annotations

import pytest

from gateway.config import load
from gateway.errors import ConfigError
from gateway.host import Host, State
from gateway.security import is_local


def discovered(log, points):
    host = Host(log)
    host.discover(points)
    return host


def test_an_installed_plugin_is_found_with_its_distribution(install, log):
    host = discovered(log, install("toy", version="2.5"))
    assert host.services["toy"].distribution == "dist-toy 2.5"
    assert host.services["toy"].state is State.FOUND
    assert log.lines == []


def test_the_bundled_front_ends_come_in_by_the_same_way(log):
    host = Host(log)
    host.discover()
    assert set(host.services) >= {"mqtt", "zeromq"}
    assert host.services["mqtt"].distribution.startswith("tidegate ")
    assert log.errors() == []


BROKEN = {
    "raises when imported": "raise OSError('no such device')",
    "leaves when imported": "import sys; sys.exit(3)",
    "has a syntax error": "def",
    "its hook raises": "@hookimpl\ndef tidegate_frontends(): raise ValueError('oh')",
    "its hook returns None in a list": "@hookimpl\ndef tidegate_frontends(): return [None]",
    "its hook returns no list": "@hookimpl\ndef tidegate_frontends(): return 5",
    "offers a hook that is none": "@hookimpl\ndef tidegate_fruntends(): return []",
    "has a hook of other arguments": "@hookimpl\ndef tidegate_frontends(broker): return []",
    "its front-end lacks a method": "del Toy.serve",
    "its front-ends have one name": "@hookimpl\ndef tidegate_frontends(): return [Toy(), Toy()]",
    "is for a later API": "tidegate_api = 99",
    "is for an earlier API": "tidegate_api = 0",
}


@pytest.mark.parametrize("code", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_is_named_with_its_distribution_and_the_others_live(install, log, code):
    install("bad", code)
    host = discovered(log, install("good", "Toy.name = 'good'"))
    assert host.services["good"].state is State.FOUND
    assert host.services["bad"].state is State.BROKEN
    (error,) = log.errors()
    assert (error["plugin"], error["distribution"]) == ("bad", "dist-bad 1.0")
    assert error["error"] == host.services["bad"].error != ""


def test_an_incompatible_plugin_is_refused_with_both_versions(install, log):
    host = discovered(log, install("bad", "tidegate_api = 99"))
    assert "version 99" in host.services["bad"].error
    assert "version 1" in host.services["bad"].error


def test_a_plugin_that_is_gone_is_named(install, log, tmp_path):
    points = install("toy")
    (tmp_path / "tidegate_test_toy.py").unlink()
    assert "ModuleNotFoundError" in discovered(log, points).services["toy"].error


def test_a_second_front_end_of_the_same_name_is_left_out_and_the_first_stays(install, log):
    install("a")
    host = discovered(log, install("b"))
    assert host.services["toy"].distribution == "dist-a 1.0"
    assert host.services["b"].state is State.BROKEN
    assert "'toy', as the one of dist-a 1.0" in host.services["b"].error


@pytest.mark.parametrize("broken", ["a", "z"], ids=["found before", "found after"])
def test_a_broken_plugin_does_not_hide_a_front_end_of_the_same_name(install, log, broken):
    good = "z" if broken == "a" else "a"
    install(broken, "raise OSError")
    host = discovered(log, install(good, f"Toy.name = {broken!r}"))
    assert host.services[broken].state is State.FOUND
    assert len(log.errors()) == 1


WIRE = """
from gateway.api import Properties
def read(wire):
    return Properties(message_id=wire.decode())
Toy.wire_decoders = {"TAG": read}
"""


def test_a_front_end_says_how_its_own_form_of_properties_is_read(install, log):
    host = discovered(log, install("toy", WIRE.replace("TAG", "toy")))
    decoders = host.wire_decoders()
    assert {tag: decoder(b"x").message_id for tag, decoder in decoders.items()} == {"toy": "x"}


@pytest.mark.parametrize("tag", ["toy", "common", ""])
def test_a_wire_tag_that_is_taken_breaks_the_plugin_that_comes_second(install, log, tag):
    install("first", WIRE.replace("TAG", "toy"))
    points = install("second", 'Toy.name = "other"' + WIRE.replace("TAG", tag))
    host = discovered(log, points)
    (error,) = log.errors()
    assert (error["plugin"], f"has a wire tag that is taken: {tag!r}" in error["error"]) == ("second", True)
    assert list(host.wire_decoders()) == ["toy"]


def test_a_plugin_gives_verbs_and_one_that_fails_is_named(install, log):
    install("bad", "@hookimpl\ndef tidegate_commands(): raise ValueError('oh')")
    verbs = "import typer\napplication = typer.Typer()\n@hookimpl\ndef tidegate_commands(): return [application]"
    host = discovered(log, install("good", "Toy.name = 'good'\n" + verbs))
    assert len(host.commands()) == 1
    assert log.errors()[-1]["plugin"] == "bad"


def configured(log, points, *overrides):
    host = discovered(log, points)
    host.configure(load(overrides=overrides))
    return host


def test_a_front_end_that_is_not_bundled_runs_only_if_the_configuration_names_it(install, log):
    points = install("toy")
    assert configured(log, points).services["toy"].state is State.UNNAMED
    assert configured(log, points, "frontend.toy.enabled=false").services["toy"].state is State.DISABLED
    assert configured(log, points, "frontend.toy={}").services["toy"].state is State.CONFIGURED


def test_a_front_end_gets_an_instance_of_its_own_model(install, log):
    host = configured(log, install("toy"), 'frontend.toy.listen=["tcp://127.0.0.1:1"]')
    assert host.services["toy"].settings.listen == ["tcp://127.0.0.1:1"]


def test_listeners_beyond_this_machine_are_known_before_they_are_bound(install, log):
    host = configured(log, install("toy"), 'frontend.toy.listen=["tcp://0.0.0.0:1", "tcp://[::1]:1"]')
    assert host.beyond(is_local) == [("toy", "tcp://0.0.0.0:1")]


def test_a_front_end_that_is_switched_off_listens_nowhere(install, log):
    host = configured(log, install("toy"), 'frontend.toy={enabled = false, listen = ["tcp://0.0.0.0:1"]}')
    assert host.beyond(is_local) == []


def refusal(log, points, *overrides):
    with pytest.raises(ConfigError) as caught:
        configured(log, points, *overrides)
    return caught.value.text


def test_a_wrong_setting_is_an_error_even_if_the_front_end_is_switched_off(install, log):
    text = refusal(log, install("toy"), "frontend.toy.enabled=false", "frontend.toy.listn=[]")
    assert "frontend.toy.listn is no setting; did you mean frontend.toy.listen?" in text


def test_a_section_that_is_nobodys_lists_what_is_installed(install, log):
    text = refusal(log, install("toy"), "frontend.toi.enabled=true")
    assert text == "--set: frontend.toi is no front-end; did you mean frontend.toy? Installed: toy"
    assert "is no front-end" in refusal(log, install("other", "Toy.name = 'other'"), "frontend.toi.enabled=false")


def test_a_broken_plugin_that_the_configuration_enables_is_said_to_be_missing(install, log):
    host = configured(
        log, install("toy", "raise OSError('no such device')"), "frontend.toy.enabled=true", "frontend.toy.anything=1"
    )
    assert host.services["toy"].state is State.BROKEN
    assert log.lines[-1][1].startswith("a front-end that the configuration enables is missing")


ODD_MODEL = """
from pydantic import model_validator

class Odd(BaseModel):
    @model_validator(mode='before')
    def check(cls, value):
        raise KeyError('x')

Toy.settings_model = Odd
"""


@pytest.mark.parametrize(
    "code",
    [
        "def addresses(self, settings): raise KeyError('x')\nToy.addresses = addresses",
        "Toy.settings_model = int",
        ODD_MODEL,
    ],
)
def test_a_front_end_whose_settings_can_not_be_had_is_broken_and_the_others_live(install, log, code):
    install("toy", code)
    host = configured(log, install("good", "Toy.name = 'good'"), "frontend.toy={}", "frontend.good={}")
    assert host.services["toy"].state is State.BROKEN
    assert host.services["good"].state is State.CONFIGURED
    assert log.errors()[0]["distribution"] == "dist-toy 1.0"


def test_an_address_that_the_front_end_can_not_understand_is_a_mistake_in_the_configuration(install, log):
    code = "def addresses(self, settings): raise ConfigError('frontend.toy.listen: nonsense')\nToy.addresses = addresses"
    assert refusal(log, install("toy", code)) == "frontend.toy.listen: nonsense"
