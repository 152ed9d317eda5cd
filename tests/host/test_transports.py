"""What the host sees to before anything listens: certificates, addresses of several kinds, whose sockets they are."""

from __future__ import annotations

import pytest

from gateway.config import load
from gateway.errors import ConfigError
from gateway.host import Host
from tests import certificates

OTHERS = ["frontend.mqtt.enabled=false", "frontend.zeromq.enabled=false", "frontend.amqp.enabled=false"]


@pytest.fixture
def configured(install, log):
    """Return a function that configures front-end `toy` alone."""

    def _configured(*settings, code=""):
        config = load(overrides=[*OTHERS, *settings])
        host = Host(log)
        host.discover(install("toy", code))
        host.configure(config)
        host.check_addresses(config)
        return host.services["toy"]

    return _configured


def complaint(configured, *settings, **more):
    with pytest.raises(ConfigError) as refused:
        configured(*settings, **more)
    return refused.value.text


def test_a_certificate_is_needed_where_something_is_encrypted(configured):
    said = complaint(configured, 'frontend.toy.listen=["tcp://127.0.0.1:1", "wss://127.0.0.1:2"]')
    assert said == "configuration: tls.certificate is not set, and tls:// and wss:// addresses need one: the name of a PEM file"


def test_a_file_that_can_not_be_used_is_named_with_who_said_so(configured, tmp_path):
    said = complaint(configured, 'frontend.toy.listen=["tls://127.0.0.1:1"]', f"frontend.toy.tls.certificate={tmp_path}/none.pem")
    assert said == f"--set: frontend.toy.tls.certificate = '{tmp_path}/none.pem': can't be read: No such file or directory"


def test_files_of_a_front_end_that_does_not_run_or_encrypts_nothing_are_not_looked_at(configured):
    wrong = 'tls.certificate="/nowhere/none.pem"'
    assert configured('frontend.toy.listen=["tcp://127.0.0.1:1"]', wrong).transport.tls.certificate is not None


def test_its_gateway_is_told_how_its_listeners_speak(configured, tmp_path):
    files = certificates.make(tmp_path)
    service = configured(
        'frontend.toy.listen=["tls://127.0.0.1:1"]',
        f"tls.certificate={files.certificate}",
        f"frontend.toy.tls.key={files.key}",
        'frontend.toy.proxy_protocol=["unix"]',
    )
    assert (service.transport.tls.certificate, service.transport.tls.key) == (files.certificate, files.key)
    assert service.transport.proxies == ("unix",)


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ('["tcp://127.0.0.1:4", "ws://127.0.0.1:4/mqtt"]', "ws://127.0.0.1:4/mqtt"),
        ('["ws://127.0.0.1:4/a", "ws://127.0.0.1:4/b"]', "ws://127.0.0.1:4/b"),
        ('["unix:/run/x", "unix:///run/x"]', "unix:///run/x"),
    ],
)
def test_a_port_or_a_file_can_be_listened_on_once_whatever_is_spoken_there(configured, listen, told):
    said = complaint(configured, f"frontend.toy.listen={listen}")
    assert f"would listen on {told} twice" in said


def test_any_free_port_can_be_used_for_every_kind(configured):
    configured('frontend.toy.listen=["tcp://127.0.0.1:0", "ws://127.0.0.1:0/a", "ws://127.0.0.1:0/b"]')


def test_a_front_end_with_sockets_of_its_own_has_no_such_settings(configured):
    said = complaint(configured, 'frontend.toy.proxy_protocol=["unix"]', code="Toy.own_sockets = True\n")
    assert said == "--set: frontend.toy.proxy_protocol is no setting. Allowed in frontend.toy: enabled, listen"


def test_the_bundled_zeromq_front_end_opens_its_own(log):
    host = Host(log)
    host.discover()
    with pytest.raises(ConfigError, match=r"frontend\.zeromq\.tls is no setting"):
        host.configure(load(overrides=['frontend.zeromq.tls={certificate="x"}']))
