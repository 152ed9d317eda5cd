"""Does a configuration mean what it says, and is what is wrong with it said?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.config import Config, Limits, load
from gateway.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "tidegate.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def complaint(*args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return caught.value.text


def test_nothing_given_means_the_defaults():
    config = load()
    assert config == Config()
    assert config.broker.data_dir == Path("tidegate-data")
    assert config.security.anonymous is None
    assert config.enabled("mqtt")
    assert config.enabled("zeromq")
    assert not config.enabled("someone-elses")


def test_the_runtime_gets_the_limits_and_the_pace_of_the_journal(write):
    limits = load(write("[limits]\nmax_connections = 1000\n[journal]\nlinger_us = 0\n")).runtime_limits()
    assert limits == Limits(max_connections=1000, linger_us=0, commit_interval_ms=0)
    assert limits.outgoing_bytes == 8 * 1024 * 1024


def test_limits_can_not_be_changed():
    with pytest.raises(ValidationError):
        Limits().max_connections = 1


@pytest.mark.parametrize(
    ("given", "interval_ms"),
    [([], 0), (["journal.profile=flash"], 100), (["journal.profile=flash", "journal.commit_interval_ms=7"], 7)],
)
def test_the_profile_flash_spaces_commits_out_unless_the_interval_is_given(given, interval_ms):
    assert load(overrides=given).runtime_limits().commit_interval_ms == interval_ms


def test_the_size_of_the_log_sets_the_pages_between_two_checkpoints():
    assert load(overrides=["journal.log_mib=4"]).journal.wal_autocheckpoint == 1000


def test_a_value_on_the_command_line_is_toml():
    config = load(overrides=["limits.max_connections=7", "security.anonymous=true", 'frontend.mqtt.listen=["tcp://[::1]:0"]'])
    assert config.limits.max_connections == 7
    assert config.security.anonymous is True
    assert config.frontend["mqtt"] == {"listen": ["tcp://[::1]:0"]}


def test_a_value_on_the_command_line_that_is_no_toml_is_a_plain_string():
    config = load(overrides=["broker.data_dir=/var/lib/a b=c", "log.level=debug"])
    assert config.broker.data_dir == Path("/var/lib/a b=c")
    assert config.log.level == "debug"


@given(st.text().filter(lambda text: text.strip() == text))
def test_any_text_given_to_set_is_a_string_or_a_toml_value_and_never_another_key(text):
    try:
        config = load(overrides=[f"frontend.mqtt.any={text}"])
    except ConfigError as error:
        pytest.fail(str(error))
    assert set(config.frontend) == {"mqtt"}
    assert set(config.frontend["mqtt"]) == {"any"}


def test_the_command_line_wins_over_the_file_and_the_last_word_over_the_first(write):
    path = write("[limits]\nmax_connections = 1\noutgoing_bytes = 70000\n")
    config = load(path, ["limits.max_connections=2", "limits.max_connections=3"])
    assert config.limits.max_connections == 3
    assert config.limits.outgoing_bytes == 70000


def test_data_dir_on_the_command_line_wins_over_everything(write):
    config = load(write('[broker]\ndata_dir = "a"\n'), ["broker.data_dir=b"], data_dir=Path("c"))
    assert config.broker.data_dir == Path("c")


def test_an_unknown_key_names_file_key_what_is_allowed_and_the_nearest(write):
    path = write("[limits]\noutgoing_byts = 1\n")
    assert complaint(path) == (
        f"{path}: limits.outgoing_byts is no setting; did you mean limits.outgoing_bytes? Allowed in limits: "
        "max_connections, outgoing_bytes, queue_memory_bytes, handshake_timeout_s, open_batch_bytes, max_message_bytes, "
        "max_queues, max_exchanges, max_bindings, memory_high_bytes, memory_max_bytes, hold_ms, drain_timeout_s"
    )


def test_an_unknown_section_names_the_sections(write):
    text = complaint(write("[brocker]\n"))
    assert (
        "brocker is no setting; did you mean broker? Allowed: broker, journal, limits, retained, security, tls, log, admin" in text
    )


def test_a_key_outside_its_section_is_sent_there(write):
    assert "did you mean broker.data_dir?" in complaint(write('data_dir = "x"\n'))


def test_an_unknown_key_on_the_command_line_is_blamed_on_the_command_line(write):
    text = complaint(write("[limits]\nmax_connections = 1\n"), ["limits.max_conections=2"])
    assert text.startswith("--set: limits.max_conections is no setting; did you mean limits.max_connections?")


def test_every_mistake_is_told_at_once(write):
    lines = complaint(write('[limits]\nmax_connections = 0\noutgoing_bytes = "big"\n[log]\nlevl = "info"\n')).splitlines()
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[journal]\nkind = "sqlit"', "journal.kind = 'sqlit': must be 'sqlite' or 'memory'"),
        ("[limits]\nmax_connections = 0", "limits.max_connections = 0: must be greater than or equal to 1"),
        ("[limits]\nmax_connections = true", "limits.max_connections = true: must be a whole number"),
        ('[limits]\nmax_connections = "5"', "limits.max_connections = '5': must be a whole number"),
        ("[security]\nanonymous = 1", "security.anonymous = 1: must be true or false"),
        ("broker = 1", "broker = 1: must be a table"),
        ("frontend = 1", "frontend = 1: must be a table"),
        ("[frontend]\nmqtt = 1", "frontend.mqtt = 1: must be a table"),
        ("[frontend.mqtt]\nenabled = 1", "frontend.mqtt.enabled must be true or false, not 1"),
        ("[admin]\nenabled = true", "admin.enabled is true, but this version has no administration interface"),
        ('[broker]\ndata_dir = ""', "broker.data_dir = '': must name a directory"),
        ('[broker]\ndata_dir = "a\\u0000b"', "must name a directory"),
        ("[broker]\ndata_dir = 3", "broker.data_dir = 3: must be a path, as a string"),
        ('"broker " = 3', '"broker " is no setting; did you mean broker?'),
        ("[limits", "is not TOML"),
        ("[limits]\nmax_connections = 1\nmax_connections = 2", "is not TOML"),
    ],
)
def test_a_wrong_value_names_file_key_and_what_is_allowed(write, text, said):
    path = write(text)
    complained = complaint(path)
    assert complained.startswith(f"{path}: ")
    assert said in complained


def test_a_plain_string_where_something_else_is_wanted_is_explained():
    assert complaint(overrides=["limits.max_connections=many"]) == (
        "--set: limits.max_connections = 'many' (taken as a plain string, as it is not TOML): must be a whole number"
    )


def test_a_string_that_was_to_be_one_is_not_said_to_be_no_toml():
    assert complaint(overrides=["journal.kind=ram"]) == "--set: journal.kind = 'ram': must be 'sqlite' or 'memory'"


def test_an_empty_data_dir_on_the_command_line_is_refused_by_its_name():
    assert complaint(data_dir="") == "--data-dir: broker.data_dir = '': must name a directory"


def test_blanks_around_the_parts_of_a_key_do_not_matter():
    assert load(overrides=["broker . data_dir =x"]).broker.data_dir == Path("x")


@pytest.mark.parametrize("override", ["limits.max_connections", "=1", "limits.=1", ".limits=1", ""])
def test_an_override_that_is_no_key_and_value_is_refused(override):
    assert complaint(overrides=[override]).startswith(f"--set {override}: must be KEY=VALUE")


def test_a_part_of_something_that_is_no_table_can_not_be_set(write):
    path = write('[[frontend.zeromq.endpoint]]\nname = "a"\n')
    assert "frontend.zeromq.endpoint is a list" in complaint(path, ["frontend.zeromq.endpoint.name=b"])


def test_a_missing_file_a_directory_and_wrong_bytes_are_told(tmp_path):
    assert complaint(tmp_path / "none.toml") == f"{tmp_path / 'none.toml'}: can't be read: {os.strerror(2)}"
    assert "can't be read" in complaint(tmp_path)
    (tmp_path / "latin").write_bytes(b'[broker]\ndata_dir = "\xff"\n')
    assert "is not UTF-8 at byte 21" in complaint(tmp_path / "latin")


def test_admin_and_front_ends_are_accepted_when_switched_off(write):
    config = load(write('[admin]\nenabled = false\nlisten = "http://127.0.0.1:1"\n[frontend.amqp]\nenabled = false\n'))
    assert not config.enabled("amqp")


class Pull(BaseModel):
    model_config = ConfigDict(extra="forbid")
    socket: Literal["PULL"]
    bind: list[str] = []


class Push(BaseModel):
    model_config = ConfigDict(extra="forbid")
    socket: Literal["PUSH"]
    queue: str


class Toy(BaseModel):
    listen: list[str] = ["tcp://127.0.0.1:7"]
    endpoint: list[Annotated[Pull | Push, Field(discriminator="socket")]] = []


def test_a_front_ends_table_becomes_an_instance_of_its_own_model(write):
    config = load(write('[frontend.toy]\nenabled = true\nlisten = ["tcp://127.0.0.1:0"]\n'))
    assert config.validated_front_end("toy", Toy) == Toy(listen=["tcp://127.0.0.1:0"])


def front_end_complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path).validated_front_end("toy", Toy)
    return caught.value.text


def test_an_unknown_key_of_a_front_end_is_an_error_even_if_its_model_would_ignore_it(write):
    path = write("[frontend.toy]\nlissten = 1\n")
    assert front_end_complaint(path) == (
        f"{path}: frontend.toy.lissten is no setting; did you mean frontend.toy.listen? "
        "Allowed in frontend.toy: enabled, proxy_protocol, unix_mode, allowed_origins, tls, listen, endpoint"
    )


def test_a_mistake_deep_in_a_list_is_named_with_its_whole_key(write):
    path = write('[[frontend.toy.endpoint]]\nsocket = "PULL"\n[[frontend.toy.endpoint]]\nsocket = "PUSH"\nqeue = "a"\n')
    lines = front_end_complaint(path).splitlines()
    assert lines == [
        f"{path}: frontend.toy.endpoint[1].queue is missing",
        (
            f"{path}: frontend.toy.endpoint[1].qeue is no setting; did you mean frontend.toy.endpoint[1].queue? "
            "Allowed in frontend.toy.endpoint[1]: socket, queue"
        ),
    ]


def test_a_wrong_kind_in_a_list_says_which_kinds_there_are(write):
    text = front_end_complaint(write('[[frontend.toy.endpoint]]\nsocket = "PAIR"\n'))
    assert "frontend.toy.endpoint[0]" in text
    assert "'PULL', 'PUSH'" in text


def test_a_hard_limit_of_memory_below_the_other_one_is_a_mistake(write):
    text = complaint(write("[limits]\nmemory_high_bytes = 2000\nmemory_max_bytes = 1000\n"))
    assert "limits.memory_max_bytes" in text
    assert "0 or at least memory_high_bytes, which is 2000" in text
    assert load(write("[limits]\nmemory_high_bytes = 2000\nmemory_max_bytes = 2000\n")).limits.memory_max_bytes == 2_000
    assert load(write("[limits]\nmemory_high_bytes = 0\nmemory_max_bytes = 1000\n")).limits.memory_max_bytes == 1_000


def test_virtual_hosts_are_names_beside_the_default_one(write):
    assert load().broker.vhosts == []
    assert load(write('[broker]\nvhosts = ["/", "house", "büro"]\n')).broker.vhosts == ["/", "house", "büro"]
    for wrong in ("", "x" * 256, "é" * 128):
        assert "1 to 255 bytes" in complaint(write(f'[broker]\nvhosts = ["{wrong}"]\n'))
