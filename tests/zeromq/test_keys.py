"""What is in key files, who may have written them, and what does ZAP say?"""

import os
import stat

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gateway.client import Curve
from gateway_zeromq.commands import app
from gateway_zeromq.security.clients import ClientKeys
from gateway_zeromq.security.keys import KeyFileError, load_pair, load_public, write_pair
from gateway_zeromq.security.passwords import check_hash, hash_of, matches
from gateway_zeromq.security.zap import Malformed, Status, answer, parse

ASKED = [b"route", b"", b"1.0", b"7", b"services", b"127.0.0.1", b"", b"CURVE", b"k" * 32]


def keygen(*arguments):
    return CliRunner().invoke(app, ["curve-keygen", *arguments])


# -- key files


def test_keygen_writes_a_pair_that_only_its_owner_can_read_and_says_where(tmp_path):
    result = keygen("alice", "-d", str(tmp_path))
    assert result.exit_code == 0
    secret, public = tmp_path / "alice.key_secret", tmp_path / "alice.key"
    assert str(secret) in result.stdout
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    pair = load_pair(secret)
    assert pair.public == load_public(public) == zmq.curve_public(pair.secret)
    assert b"secret-key" not in public.read_bytes()


def test_the_mode_of_a_secret_key_does_not_depend_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        write_pair(tmp_path, "alice")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "alice.key_secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("there", ["alice.key", "alice.key_secret"])
def test_keygen_writes_over_nothing(tmp_path, there):
    (tmp_path / there).write_text("mine")
    result = keygen("alice", "-d", str(tmp_path))
    assert result.exit_code == 73
    assert f"{tmp_path / there} is there already" in result.output
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a/b", "..\\x", " a", "a\nb", "anonymous", "x" * 201])
def test_keygen_refuses_what_is_no_name(tmp_path, name):
    result = keygen("-d", str(tmp_path), "--", name)
    assert result.exit_code == 2
    assert "is no name" in result.output
    assert not list(tmp_path.iterdir())


def test_keygen_says_where_it_can_not_write(tmp_path):
    result = keygen("alice", "-d", str(tmp_path / "nowhere"))
    assert result.exit_code == 73
    assert "no such file or directory" in result.output


def test_pyzmq_and_the_client_read_what_keygen_writes(tmp_path):
    secret, public = write_pair(tmp_path, "alice")
    pair = load_pair(secret)
    assert zmq.auth.load_certificate(secret) == (pair.public, pair.secret)
    assert zmq.auth.load_certificate(public) == (pair.public, None)
    Curve(secret, public)
    with pytest.raises(ValueError, match="no secret key"):
        Curve(public, public)


def test_what_pyzmq_writes_is_read(tmp_path):
    public, secret = map(str, zmq.auth.create_certificates(tmp_path, "bob"))
    os.chmod(secret, 0o600)
    assert load_pair(tmp_path / "bob.key_secret").public == load_public(tmp_path / "bob.key")
    assert public.endswith("bob.key")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no line secret-key"),
        ('curve\n public-key = "x"\n', "no line secret-key"),
        ('curve\n secret-key = "x"\n', "not 40 characters of Z85"),
        ('curve\n secret-key = "' + "~" * 40 + '"\n', "not 40 characters of Z85"),
        ('curve\n secret-key = "' + "#" * 40 + '"\n', "not 40 characters of Z85"),
    ],
)
def test_what_is_no_secret_key_is_refused_in_words(tmp_path, text, words):
    (tmp_path / "x").write_text(text)
    (tmp_path / "x").chmod(0o600)
    with pytest.raises(KeyFileError, match=words):
        load_pair(tmp_path / "x")


def test_halves_that_do_not_belong_together_are_refused(tmp_path):
    secret, _ = write_pair(tmp_path, "alice")
    other = load_public(write_pair(tmp_path, "bob")[1]).decode()
    mine = load_pair(secret).public.decode()
    secret.write_text(secret.read_text().replace(mine, other))
    with pytest.raises(KeyFileError, match="not that of the secret key"):
        load_pair(secret)


@given(st.binary(max_size=200))
def test_no_file_whatever_is_in_it_raises_anything_else(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.key"
    path.write_bytes(content)
    for load in (load_public, load_pair):
        with pytest.raises(KeyFileError):
            load(path)
    assert ClientKeys(path).look().complaints


# -- clients


def test_clients_are_read_again_only_when_something_changed(tmp_path):
    write_pair(tmp_path, "alice")
    keys = ClientKeys(tmp_path)
    keys.view = keys.look()
    assert keys.user_of(bytes(32)) is None
    assert list(keys.view.users.values()) == ["alice"], "the secret key is none of a client's"
    assert keys.look() is keys.view
    write_pair(tmp_path, "bob")
    assert sorted(keys.look().users.values()) == ["alice", "bob"]


def test_a_key_under_two_names_is_a_complaint(tmp_path):
    _, public = write_pair(tmp_path, "alice")
    (tmp_path / "bob.key").write_bytes(public.read_bytes())
    view = ClientKeys(tmp_path).look()
    assert list(view.users.values()) == ["alice"]
    assert "'bob' is that of 'alice', too" in view.complaints[0]


@pytest.mark.parametrize("line", ["nonsense", "alice = short", '= "x"', "an/ony = 'x'"])
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "keys").write_text(f"# clients\n{line}\n")
    (complaint,) = ClientKeys(tmp_path / "keys").look().complaints
    assert complaint.startswith(f"{tmp_path / 'keys'}: ")


# -- passwords


def test_a_password_matches_its_hash_alone():
    users = {"alice": hash_of("wonderland")}
    assert matches(users, "alice", b"wonderland")
    assert not matches(users, "alice", b"")
    assert not matches(users, "bob", b"wonderland")


def test_a_hash_that_is_none_is_refused():
    with pytest.raises(ValueError, match="no argon2 hash"):
        check_hash("wonderland")


def test_the_command_hashes_the_first_line_of_its_input():
    result = CliRunner().invoke(app, ["password-hash"], input="wonderland\n")
    assert matches({"alice": result.stdout.strip()}, "alice", b"wonderland")
    assert CliRunner().invoke(app, ["password-hash"], input="\n").exit_code == 2


# -- ZAP


def test_an_answer_goes_where_the_question_came_from():
    request = parse(ASKED)
    assert (request.domain, request.address, request.mechanism, request.credentials) == (
        "services",
        "127.0.0.1",
        "CURVE",
        (b"k" * 32,),
    )
    assert answer(request, Status.OK, "OK", "alice") == [b"route", b"", b"1.0", b"7", b"200", b"OK", b"alice", b""]


@pytest.mark.parametrize(
    "frames",
    [
        [*ASKED[:2], b"2.0", *ASKED[3:]],
        ASKED[:7],
        [*ASKED, b"more"],
        ASKED[:8],
        [*ASKED[:7], b"PLAIN", b"user"],
        [*ASKED[:7], b"NULL", b"x"],
    ],
)
def test_a_question_that_is_not_understood_is_refused(frames):
    with pytest.raises(Malformed) as caught:
        parse(frames)
    assert caught.value.reply[4] == b"400"


@given(st.lists(st.binary(max_size=20), max_size=12))
def test_any_frames_are_a_question_or_are_refused(frames):
    try:
        request = parse(frames)
    except Malformed:
        return
    assert answer(request, Status.BROKEN, "x")[0] == frames[0]
