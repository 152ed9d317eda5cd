"""Do `tidegate definitions` and `tidegate policy` do the same at a running broker and on its journal?"""

import json
import signal

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app

ALONE = ("--set", 'frontend.mqtt.listen=["tcp://127.0.0.1:0"]', "--set", "frontend.zeromq.enabled=false")

DATA = {
    "vhosts": [{"name": "/"}],
    "queues": [
        {"name": "größe", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {"x-max-priority": 3}},
        {"name": "s", "vhost": "/", "durable": True, "auto_delete": False, "arguments": {"x-queue-type": "stream"}},
    ],
    "exchanges": [
        {"name": "x", "vhost": "/", "type": "topic", "durable": True, "auto_delete": False, "internal": False, "arguments": {}}
    ],
    "bindings": [
        {"source": "x", "vhost": "/", "destination": "größe", "destination_type": "queue", "routing_key": "a.#", "arguments": {}}
    ],
    "policies": [{"vhost": "/", "name": "ttl", "pattern": "^g", "definition": {"message-ttl": 1000}, "apply-to": "queues"}],
}


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Run a verb in this process, in the directory of the broker; return exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def _said(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return _said


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(DATA), encoding="utf-8")
    return path


def exported(said, *arguments):
    code, output, errors = said("definitions", "export", *arguments)
    assert (code, errors) == (0, "")
    return json.loads(output)


def names(data, section):
    return [item["name"] for item in data[section]]


def test_without_a_broker_the_journal_is_read_and_written(said, file, tmp_path):
    code, output, errors = said("definitions", "import", file)
    assert (code, errors) == (0, "")
    assert output.splitlines()[0] == "taken: 1 vhosts, 1 exchanges, 1 queues, 1 bindings, 1 policies"
    assert output.splitlines()[1].startswith("not taken: queues[1]: queue 's' of vhost '/': queue type 'stream'")
    data = exported(said)
    assert (names(data, "queues"), names(data, "exchanges"), names(data, "policies")) == (["größe"], ["x"], ["ttl"])
    assert said("definitions", "export", "out.json")[0] == 0
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == data
    assert (tmp_path / "out.json").stat().st_mode & 0o777 == 0o600


def test_a_dry_run_needs_no_journal_and_makes_none(said, file, tmp_path):
    code, output, errors = said("definitions", "import", file, "--dry-run")
    assert (code, errors) == (0, "")
    assert output.startswith("would be taken: 1 vhosts, 1 exchanges, 1 queues, 1 bindings, 1 policies\n")
    assert not (tmp_path / "tidegate-data").exists()


def test_an_import_that_is_refused_leaves_the_journal_as_it_was(said, file):
    said("definitions", "import", file)
    before = exported(said)
    changed = json.loads(json.dumps(DATA))
    changed["exchanges"][0]["type"] = "fanout"
    changed["queues"].append({**DATA["queues"][0], "name": "new"})
    file.write_text(json.dumps(changed), encoding="utf-8")
    code, _, errors = said("definitions", "import", file)
    assert code == 2
    assert "exchanges[0]: inequivalent arg 'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'topic'" in errors
    assert exported(said) == before


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_the_limits_hold_without_a_broker_too(said, file, more):
    code, _, errors = said("definitions", "import", file, "--set", "limits.max_queues=1", *more)
    assert (code, errors) == (0, "")
    two = json.loads(file.read_text(encoding="utf-8"))
    two["queues"] += [{**two["queues"][0], "name": name} for name in ("one more", "another")]
    file.write_text(json.dumps(two), encoding="utf-8")
    code, output, errors = said("definitions", "import", file, "--set", "limits.max_queues=2", *more)
    assert (code, output) == (2, "")
    assert "limits.max_queues = 2 would be passed" in errors


def test_a_running_broker_is_asked_and_what_it_took_outlives_it(tidegate, said, file):
    broker = tidegate("serve", *ALONE)
    broker.lines_until("ready")
    assert said("definitions", "import", file, "--dry-run")[1].startswith("would be taken: 1 vhosts")
    assert names(exported(said), "queues") == []
    assert said("definitions", "import", file)[0] == 0
    alive = exported(said)
    assert names(alive, "queues") == ["größe"]
    code, output, _ = said("policy", "set", "cap", "^gr", '{"max-length": 5, "ha-mode": "all"}', "--priority", "2")
    assert (code, output) == (0, "cap: set; it holds for 1 queue now; without effect here: ha-mode\n")
    rows = json.loads(said("policy", "list", "--json")[1])
    assert [(row["name"], row["queues"]) for row in rows] == [("cap", 1), ("ttl", 0)]
    broker.signal(signal.SIGKILL)
    broker.ends()
    assert [row["name"] for row in json.loads(said("policy", "list", "--json")[1])] == ["cap", "ttl"]
    assert said("policy", "clear", "cap")[:2] == (0, "cap: cleared\n")
    assert exported(said) == alive


def test_policies_are_set_and_cleared_without_a_broker(said, file):
    said("definitions", "import", file)
    assert said("policy", "set", "cap", "", '{"max-length": 9}', "--operator")[:2] == (0, "cap: set; it holds for 1 queue now\n")
    listed = said("policy", "list")[1].splitlines()
    assert len(listed) == 2
    assert "operator policy cap" in listed[1]
    assert said("policy", "clear", "cap", "--operator")[0] == 0
    code, _, errors = said("policy", "clear", "cap", "--operator")
    assert (code, errors) == (1, "tidegate: no operator policy 'cap' in vhost '/'\n")


def test_definitions_of_the_configuration_are_there_before_anybody_can_connect(tidegate, said, file):
    for _ in range(2):
        broker = tidegate("serve", *ALONE, "--set", f"broker.definitions={file}")
        broker.lines_until("ready")
        assert "a definition is not taken" in broker.errors
        broker.signal(signal.SIGTERM)
        assert broker.ends() == 0
    assert names(exported(said), "queues") == ["größe"]


def test_definitions_of_the_configuration_that_contradict_end_the_start_with_the_path(tidegate, said, file):
    said("definitions", "import", file)
    changed = json.loads(json.dumps(DATA))
    changed["queues"][0]["arguments"] = {}
    file.write_text(json.dumps(changed), encoding="utf-8")
    broker = tidegate("serve", *ALONE, "--set", f"broker.definitions={file}")
    assert broker.ends() == 2
    assert f"tidegate: {file}: queues[0]: inequivalent" in broker.errors
    assert "Traceback" not in broker.errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1, column 2: is not JSON"),
        ("[]", "is not a definitions file"),
        ('{"queues": {}}', "queues: a list"),
        ('{"queues": [{"name": "q"}]}', "queues[0].vhost: is missing (text)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name_and_place(said, file, text, words):
    file.write_text(text, encoding="utf-8")
    code, output, errors = said("definitions", "import", file)
    assert (code, output) == (2, "")
    assert errors.startswith(f"tidegate: {file}: ")
    assert words in errors


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("definitions", "import", "nowhere.json"), 2, "nowhere.json: can't be read: No such file"),
        (("definitions", "export"), 74, "no journal"),
        (("policy", "set", "p", "(", '{"max-length": 1}'), 1, "no regular expression"),
        (("policy", "set", "p", "", '{"max-lenght": 1}'), 1, "did you mean 'max-length'?"),
        (("policy", "set", "p", "", "{max-length}"), 1, "is no JSON"),
    ],
)
def test_errors_are_words_and_nothing_is_made(said, tmp_path, arguments, code, words):
    got, _, errors = said(*arguments)
    assert got == code
    assert words in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "tidegate-data").exists()


def test_a_check_of_the_configuration_says_what_would_become_of_its_definitions(said, file, tmp_path):
    (tmp_path / "c.toml").write_text(f'[broker]\ndefinitions = "{file}"\n')
    code, output, errors = said("check-config", "c.toml")
    assert (code, errors) == (0, "")
    assert "broker.definitions: would be taken: 1 vhosts, 1 exchanges, 1 queues, 1 bindings, 1 policies" in output
    assert "broker.definitions: not taken: queues[1]: queue 's'" in output
    assert not (tmp_path / "tidegate-data").exists()


def test_a_check_of_the_configuration_finds_all_that_is_wrong_with_its_definitions_and_changes_nothing(said, file, tmp_path):
    assert said("definitions", "import", file)[0] == 0
    data = json.loads(file.read_text(encoding="utf-8"))
    data["queues"][0]["arguments"] = {}
    data["exchanges"][0]["type"] = "direct"
    file.write_text(json.dumps(data), encoding="utf-8")
    (tmp_path / "c.toml").write_text(f'[broker]\ndefinitions = "{file}"\n\n[frontend.mqtt]\nlisten = "tcp://127.0.0.1:99999"\n')
    before = exported(said)
    code, output, errors = said("check-config", "c.toml")
    assert (code, output) == (2, "")
    assert all(words in errors for words in ("queues[0]: inequivalent", "exchanges[0]: inequivalent", "99999"))
    assert exported(said) == before
