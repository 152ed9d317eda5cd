"""Certificate files: what is wrong with them is said at the start, and what is new in them is taken while it runs."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
import trio

from gateway.config import TlsSettings, Transport
from gateway.errors import ConfigError
from gateway.runtime.streams.certificates import WATCH_S, Certificates, check, make_context
from gateway.runtime.streams.validity import validity
from tests import certificates
from tests.runtime.support import Log


@pytest.fixture
def files(tmp_path):
    return certificates.make(tmp_path)


@pytest.fixture
def log():
    return Log()


def transport(files, **settings):
    return Transport(TlsSettings(**({"certificate": files.certificate, "key": files.key} | settings)))


def complaint(transport):
    with pytest.raises(ConfigError) as refused:
        make_context(transport)
    return refused.value.text


def test_one_file_may_hold_both(files):
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    make_context(transport(files, key=None))


def test_without_a_certificate_the_setting_is_named():
    assert complaint(Transport()).startswith("tls.certificate is not set, and tls:// and wss:// addresses need one")


@pytest.mark.parametrize("name", ["certificate", "key", "key_password_file", "client_ca"])
def test_a_missing_file_is_named_with_its_setting(files, name):
    missing = files.directory / "missing.pem"
    assert complaint(transport(files, **{name: missing})) == f"tls.{name} = '{missing}': can't be read: No such file or directory"


def test_a_key_of_another_certificate_is_said_to_be_one(files):
    other = files.key.read_bytes()
    files.issue()
    files.key.write_bytes(other)
    said = complaint(transport(files))
    assert said == f"tls.key = '{files.key}': is not the key of the certificate in '{files.certificate}'"


def test_files_that_hold_something_else_are_named(files):
    note = files.directory / "note.txt"
    note.write_text("hello")
    assert complaint(transport(files, certificate=note)) == f"tls.certificate = '{note}': holds no certificate in PEM form"
    assert complaint(transport(files, key=note)) == f"tls.key = '{note}': holds no private key in PEM form"
    assert complaint(transport(files, key=None)) == f"tls.certificate = '{files.certificate}': holds no private key in PEM form"
    said = complaint(transport(files, client_ca=note, client_certificate="required"))
    assert said == f"tls.client_ca = '{note}': holds no certificates in PEM form"
    files.key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert f"tls.key = '{files.key}': key or certificate" in complaint(transport(files))


def test_an_encrypted_key_needs_its_password(files):
    files.encrypt_key("secret")
    said = complaint(transport(files))
    assert said == f"tls.key = '{files.key}': is encrypted: tls.key_password_file must name a file with its password"
    password = files.directory / "password"
    for wrong in ("wrong\n", ""):
        password.write_text(wrong)
        assert f"the password in tls.key_password_file = '{password}' does not open it" in complaint(
            transport(files, key_password_file=password)
        )
    password.write_text("secret\nanother line\n")
    make_context(transport(files, key_password_file=password))


def test_asking_clients_for_certificates_needs_roots(files):
    said = complaint(transport(files, client_certificate="required"))
    assert said == "tls.client_certificate = 'required': tls.client_ca must name the roots they come from"


def test_unknown_ciphers_are_refused_and_known_ones_used(files):
    assert complaint(transport(files, ciphers="ROT13")) == "tls.ciphers = 'ROT13': OpenSSL knows none of them"
    context = make_context(transport(files, ciphers="ECDHE-RSA-AES128-GCM-SHA256"))
    assert "ECDHE-RSA-AES128-GCM-SHA256" in {cipher["name"] for cipher in context.get_ciphers()}
    assert "ECDHE-RSA-AES256-GCM-SHA384" not in {cipher["name"] for cipher in context.get_ciphers()}


def test_files_are_looked_at_only_if_an_address_is_encrypted():
    check(Transport(), ["tcp://127.0.0.1:1", "ws://127.0.0.1:2", "unix:/x"])
    for address in ("tls://127.0.0.1:1", "wss://127.0.0.1:2/mqtt"):
        with pytest.raises(ConfigError):
            check(Transport(), [address])


def test_an_expired_certificate_is_a_warning(files, log):
    files.issue(expires=datetime.now(UTC) - timedelta(days=1))
    Certificates(transport(files), log)
    ((level, event, values),) = log.lines
    assert (level, event) == ("warning", "the TLS certificate has expired: clients will refuse it")
    assert values["file"] == str(files.certificate)


def test_the_period_is_read_as_it_was_written(files):
    end = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    files.issue(expires=end)
    begin, found = validity(files.certificate)
    assert found == end
    assert begin < end
    files.issue(expires=datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert validity(files.certificate)[1].year == 2051


@pytest.mark.parametrize(
    "text", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n"]
)
def test_a_period_that_can_not_be_read_is_none(tmp_path, text):
    path = tmp_path / "x.pem"
    path.write_text(text)
    assert validity(path) is None
    assert validity(tmp_path / "missing") is None


def test_a_valid_certificate_is_not_talked_about(files, log):
    Certificates(transport(files), log)
    assert log.lines == []


def test_new_files_are_taken_when_they_are_all_written(files, log):
    watched = Certificates(transport(files), log)
    first = watched.context
    watched.look()
    assert watched.context is first
    files.issue()
    watched.look()
    assert watched.context is first
    watched.look()
    assert watched.context is not first
    assert [(level, event) for level, event, _ in log.lines] == [
        ("info", "TLS files were read again: new connections get the new certificate")
    ]
    second = watched.context
    watched.look()
    assert watched.context is second


def test_broken_new_files_leave_the_old_certificate_and_are_logged_once(files, log):
    watched = Certificates(transport(files), log)
    first = watched.context
    good = files.key.read_bytes()
    files.key.write_text("broken")
    for _ in range(5):
        watched.look()
    assert watched.context is first
    ((level, _, values),) = log.lines
    assert level == "error"
    assert str(files.key) in values["error"]
    files.key.write_bytes(good)
    watched.look()
    watched.look()
    assert watched.context is not first


def test_a_file_that_is_gone_for_a_moment_is_no_event(files, log):
    watched = Certificates(transport(files), log)
    first, away = watched.context, files.directory / "away"
    os.rename(files.key, away)
    watched.look()
    os.rename(away, files.key)
    watched.look()
    watched.look()
    assert watched.context is first
    assert log.lines == []


async def test_files_are_looked_at_every_few_seconds(files, log, autojump_clock):
    watched = Certificates(transport(files), log)
    first = watched.context
    files.issue()
    with trio.move_on_after(2.5 * WATCH_S):
        await watched.watch()
    assert watched.context is not first
