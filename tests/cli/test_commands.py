"""What does each command say, and how does it end?"""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import gateway.cli
from gateway.cli import machine
from gateway.cli.commands import app
from gateway.version import is_compiled

NO_ZEROMQ = ("--set", "frontend.zeromq.enabled=false")


@pytest.fixture
def invoked(tmp_path, monkeypatch):
    """Run a command in this process, in an empty directory; return exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def _invoked(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="tidegate")
        return result.exit_code, result.stdout, result.stderr

    return _invoked


def test_version_says_whether_it_is_compiled(said):
    code, output, _ = said("--version")
    assert code == 0
    build = "compiled" if is_compiled() else "pure Python, not compiled"
    assert output.startswith(f"tidegate {gateway.__version__} ({build}; ")


def test_the_module_is_the_command(said, tmp_path):
    as_module = subprocess.run(
        [sys.executable, "-m", "gateway", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert as_module.stdout == said("--version")[1]


def test_help_lists_the_verbs_of_the_core_and_of_the_plugins(invoked):
    code, output, _ = invoked("--help")
    assert code == 0
    verbs = [line.split()[0] for line in output.partition("Commands:")[2].strip().splitlines()]
    own = ["serve", "check-config", "queues", "counters", "peek", "backup", "restore"]
    grouped = ["scheduled", "journal", "definitions", "policy"]
    assert verbs == [*own, *grouped, "demo", "pub", "sub", "curve-keygen", "password-hash"]


@pytest.mark.parametrize("arguments", [["nosuch"], ["serve", "--nosuch"], ["serve", "extra"], ["check-config"], []])
def test_what_is_not_understood_ends_with_2(invoked, arguments):
    assert invoked(*arguments)[0] == 2


def test_plugins_are_not_loaded_for_the_cores_own_verbs(tmp_path):
    look = "import sys; from gateway.cli.commands import app; app(['--version'], standalone_mode=False); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert not any(
        f"'{name}" in loaded
        for name in ("gateway_amqp", "gateway_mqtt", "gateway_zeromq", "pydantic", "trio", "zmq", "structlog", "rich.")
    )


def test_a_checked_configuration_says_what_would_listen(invoked, tmp_path):
    (tmp_path / "my.toml").write_text("[frontend.zeromq]\nenabled = false\n")
    code, output, _ = invoked("check-config", "my.toml")
    assert code == 0
    assert output.splitlines() == [
        "my.toml: ok",
        "anonymous peers are let in",
        "frontend.amqp: would listen on tcp://127.0.0.1:5672",
        "frontend.mqtt: would listen on tcp://127.0.0.1:1883",
        "frontend.zeromq: switched off by the configuration",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[frontend.mqtt]\nlissten = 1\n", "my.toml: frontend.mqtt.lissten is no setting; did you mean frontend.mqtt.listen?"),
        ("[frontend.mqqt]\n", "my.toml: frontend.mqqt is no front-end; did you mean frontend.mqtt? Installed: amqp, mqtt, zeromq"),
        ('[journal]\nkind = "ram"\n', "my.toml: journal.kind = 'ram': must be 'sqlite' or 'memory'"),
        ("what", "my.toml: is not TOML"),
    ],
)
def test_a_wrong_configuration_names_file_key_and_what_is_allowed(invoked, tmp_path, text, complaint):
    (tmp_path / "my.toml").write_text(text)
    code, output, errors = invoked("check-config", "my.toml")
    assert code == 2
    assert output == ""
    assert errors.startswith(f"tidegate: {complaint}")
    assert "Traceback" not in errors


def test_what_check_config_refuses_serve_refuses_in_the_same_words(invoked, tmp_path):
    (tmp_path / "my.toml").write_text("[frontend.mqtt]\nlissten = 1\n")
    assert invoked("serve", "--config", "my.toml") == invoked("check-config", "my.toml")


def test_mistakes_of_a_front_end_are_told_in_the_same_words_too(invoked, tmp_path):
    (tmp_path / "my.toml").write_text("[frontend.mqtt]\nlisten = []\nmax_inflight = 0\n")
    code, _, errors = invoked("serve", "--config", "my.toml")
    assert code == 2
    assert "frontend.mqtt.listen = []: must have at least 1 element" in errors
    assert [line.startswith("tidegate: my.toml: ") for line in errors.splitlines()] == [True, True]
    assert invoked("check-config", "my.toml")[2] == errors


def test_a_configuration_file_that_is_not_there_is_named(invoked):
    code, _, errors = invoked("serve", "--config", "none.toml")
    assert code == 2
    assert errors == "tidegate: none.toml: can't be read: No such file or directory\n"


def test_a_listener_beyond_this_machine_needs_a_word_on_anonymous_access(invoked, tmp_path):
    (tmp_path / "my.toml").write_text('[frontend.mqtt]\nlisten = ["tcp://0.0.0.0:0"]\n')
    code, _, errors = invoked("serve", "--config", "my.toml")
    assert code == 2
    assert "frontend.mqtt on tcp://0.0.0.0:0" in errors
    assert "--set security.anonymous=true" in errors
    assert invoked("check-config", "my.toml")[0] == 2
    code, output, _ = invoked(
        "check-config", "my.toml", "--set", "security.anonymous=false", "--set", "frontend.zeromq.enabled=false"
    )
    assert code == 0
    assert "anonymous peers are refused" in output


BROKEN_PLUGIN = {
    "broken_frontend.py": "raise OSError('no such device')\n",
    "dist_broken-3.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: dist-broken\nVersion: 3.2\n",
    "dist_broken-3.2.dist-info/entry_points.txt": "[tidegate.frontends]\nbroken = broken_frontend\n",
}


@pytest.fixture
def broken_plugin(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plugins-of-others")
    for name, text in BROKEN_PLUGIN.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    return {"PYTHONPATH": str(directory)}


def test_a_broken_plugin_is_named_and_verbs_go_on(said, broken_plugin):
    code, output, errors = said("pub", "--help", environment=broken_plugin)
    assert code == 0
    assert "TOPIC" in output
    assert "dist-broken 3.2" in errors
    assert "no such device" in errors


def test_a_machine_without_what_is_needed_is_told_what(monkeypatch):
    find_spec = machine.importlib.util.find_spec
    assert list(machine.lacking()) == []
    monkeypatch.setattr(
        machine.importlib.util, "find_spec", lambda name: None if name in ("fcntl", "_sqlite3") else find_spec(name)
    )
    lock, sqlite = machine.lacking()
    assert "fcntl" in lock
    assert "SQLite" in sqlite


def test_an_unusual_machine_is_only_remarked_on(monkeypatch):
    assert machine.untried() == ""
    monkeypatch.setattr(machine.platform, "machine", lambda: "riscv64")
    assert "riscv64" in machine.untried()


def test_an_old_python_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or later"):
        gateway.cli.main()


def test_queues_says_that_there_is_no_journal(invoked):
    code, _, errors = invoked("queues", "--data-dir", "nowhere")
    assert code == 74
    assert "there is no journal in nowhere; if the broker keeps it elsewhere say so by --data-dir or --config" in errors
