"""What listeners need to know: section tls, and the host's own keys in a front-end's section."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.config import TlsSettings, Transport, load
from gateway.errors import ConfigError


class Toy(BaseModel):
    listen: list[str] = ["tcp://127.0.0.1:7"]


@pytest.fixture
def transport(tmp_path):
    def read(text: str):
        path = tmp_path / "tidegate.toml"
        path.write_text(text)
        config = load(path)
        config.validated_front_end("toy", Toy)
        return config.transport("toy")

    return read


def test_without_a_word_nothing_is_trusted_and_socket_files_are_open_to_the_group(transport):
    assert transport("[frontend.toy]\n") == Transport(tls_keys=transport("").tls_keys)
    assert transport("").networks == ()
    assert transport("").unix_mode == 0o660


def test_a_front_end_says_only_what_differs_from_the_section(transport):
    read = transport(
        '[tls]\ncertificate = "all.pem"\nkey = "all.key"\nmin_version = "1.3"\n'
        '[frontend.toy.tls]\ncertificate = "toy.pem"\nclient_certificate = "required"\nclient_ca = "ca.pem"\n'
    )
    assert read.tls == TlsSettings(
        certificate=Path("toy.pem"),
        key=Path("all.key"),
        min_version="1.3",
        client_certificate="required",
        client_ca=Path("ca.pem"),
    )
    assert read.tls_keys["certificate"].endswith("tidegate.toml: frontend.toy.tls.certificate")
    assert read.tls_keys["key"].endswith("tidegate.toml: tls.key")


def test_one_proxy_or_several_networks_or_unix_sockets_are_trusted(transport):
    assert transport('[frontend.toy]\nproxy_protocol = "127.0.0.1"\n').proxies == ("127.0.0.1",)
    read = transport('[frontend.toy]\nproxy_protocol = ["10.0.0.0/8", "unix", "2001:db8::/32"]\n')
    assert [str(network) for network in read.networks] == ["10.0.0.0/8", "2001:db8::/32"]
    assert "unix" in read.proxies


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('proxy_protocol = ["example.org"]', "proxy_protocol[0] = 'example.org': must be an address, a network"),
        ('proxy_protocol = ["10.0.0.1/8"]', "has host bits set"),
        ("proxy_protocol = true", "proxy_protocol = true: must be a list"),
        ('unix_mode = "0999"', 'must be the permissions of a file as octal digits, for instance "0660"'),
        ('unix_mode = "-1"', "must be the permissions of a file"),
        ('unix_mode = "1777"', "must be the permissions of a file"),
        ("unix_mode = 432", "must be a string"),
        ('allowed_origins = ["example.org"]', "must be the origin of a page"),
        ('allowed_origins = ["https://example.org/"]', "must be the origin of a page"),
        ("tls = 1", "frontend.toy.tls = 1: must be a table"),
        ('tls.certifcate = "x"', "frontend.toy.tls.certifcate is no setting; did you mean frontend.toy.tls.certificate?"),
        ('tls.min_version = "1.1"', "frontend.toy.tls.min_version = '1.1': must be '1.2' or '1.3'"),
        ('tls.client_certificate = "maybe"', "must be 'none', 'optional' or 'required'"),
        ('tls.key = ""', "must name a file"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(transport, text, said):
    with pytest.raises(ConfigError) as refused:
        transport(f"[frontend.toy]\n{text}\n")
    assert said in refused.value.text


def test_the_hosts_keys_are_unknown_where_a_front_end_opens_its_sockets_itself(tmp_path):
    path = tmp_path / "tidegate.toml"
    path.write_text('[frontend.toy]\nenabled = true\nproxy_protocol = ["unix"]\n')
    with pytest.raises(
        ConfigError, match=r"frontend\.toy\.proxy_protocol is no setting\. Allowed in frontend\.toy: enabled, listen"
    ):
        load(path).validated_front_end("toy", Toy, own_sockets=True)
