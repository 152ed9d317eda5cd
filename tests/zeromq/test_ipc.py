"""Are paths of ipc addresses safe, and does IPv6 work?"""

import os
import socket as sockets
import stat
import subprocess
import sys

import pytest
import zmq

from gateway.api import ConfigError, GatewayError, ListenError
from gateway_zeromq.endpoints.ipc import Claim, Unsafe, claim_of
from tests.zeromq.hashes import hash_of
from tests.zeromq.keyring import Keyring
from tests.zeromq.support import Client, serving


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(0)


def router(address, **more):
    return {"name": "local", "socket": "ROUTER", "bind": [address], **more}


async def refusal(*endpoints):
    with pytest.RaisesGroup(GatewayError, allow_unwrapped=True, flatten_subgroups=True) as caught:
        async with serving(*endpoints):
            pass
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@pytest.mark.parametrize(("setting", "mode"), [({}, 0o600), ({"ipc_mode": "0660"}, 0o660)])
async def test_a_path_has_the_mode_that_is_set_whatever_the_umask(tmp_path, context, setting, mode):
    path = tmp_path / "own" / "socket"
    before = os.umask(0)
    try:
        async with serving(router(f"ipc://{path}", **setting)) as running:
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            client = Client(context, running.address("ROUTER"))
            await client.hello()
            client.close()
    finally:
        os.umask(before)
    assert not list(path.parent.iterdir()), "nothing is left behind"


async def test_a_path_has_one_owner_at_a_time(tmp_path):
    address = f"ipc://{tmp_path}/socket"
    async with serving(router(address)):
        error = await refusal(router(address, name="second"))
        assert isinstance(error, ListenError)
        assert "another program listens there" in error.text
    async with serving(router(address)):
        pass


async def test_a_path_of_a_program_that_locks_nothing_is_not_taken_from_it(tmp_path):
    with sockets.socket(sockets.AF_UNIX) as other:
        other.bind(str(tmp_path / "socket"))
        other.listen()
        error = await refusal(router(f"ipc://{tmp_path}/socket"))
        assert "another program listens there" in error.text
    assert not (tmp_path / "socket.lock").exists()


async def test_a_file_that_is_no_socket_is_not_deleted(tmp_path):
    (tmp_path / "file").write_text("precious")
    error = await refusal(router(f"ipc://{tmp_path}/file"))
    assert isinstance(error, ListenError)
    assert (tmp_path / "file").read_text() == "precious"


async def test_a_directory_where_all_may_write_is_refused_unless_it_is_sticky(tmp_path):
    tmp_path.chmod(0o777)
    error = await refusal(router(f"ipc://{tmp_path}/socket"))
    assert isinstance(error, ConfigError)
    assert "everybody can write" in error.text
    tmp_path.chmod(0o1777)
    async with serving(router(f"ipc://{tmp_path}/socket")):
        pass


async def test_a_path_that_is_too_long_is_refused_in_words(tmp_path):
    error = await refusal(router(f"ipc://{tmp_path}/{'x' * 110}"))
    assert "more than 107 bytes" in error.text


def test_a_lock_goes_with_its_process_however_that_ends(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from gateway_zeromq.endpoints.ipc import Claim; "
        "Claim(Path(sys.argv[1])).take(); print('taken', flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "socket")], capture_output=True, check=False, timeout=60)
    assert done.stdout == b"taken\n"
    assert (tmp_path / "socket.lock").exists()
    claim = Claim(tmp_path / "socket")
    claim.take()
    with pytest.raises(Unsafe, match="another program"):
        Claim(tmp_path / "socket").take()
    claim.release()
    claim.release()
    Claim(tmp_path / "socket").take()


@pytest.mark.parametrize("address", ["ipc://@abstract", "ipc://*", "tcp://127.0.0.1:1"])
def test_what_is_no_path_needs_no_claim(address):
    assert claim_of(address) is None


def has_ipv6():
    try:
        with sockets.socket(sockets.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("security", ["null", "plain", "curve"])
async def test_ipv6_works_with_every_security(tmp_path, context, security):
    keys = Keyring(tmp_path)
    settings, options = {
        "null": ({}, {}),
        "plain": (
            {"security": "plain", "users": {"alice": hash_of("x")}},
            {"PLAIN_USERNAME": b"alice", "PLAIN_PASSWORD": b"x"},
        ),
        "curve": (keys.settings(), keys.allow("alice")),
    }[security]
    async with serving(router("tcp://[::1]:0", **settings)) as running:
        address = running.address("ROUTER")
        assert address.startswith("tcp://[::1]:")
        client = Client(context, address, IPV6=1, **options)
        await client.hello()
        client.close()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_one_socket_can_serve_both_families(context):
    async with serving(router("tcp://*:0", ipv6=True)) as running:
        port = running.address("ROUTER").rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            client = Client(context, f"tcp://{host}:{port}", IPV6=1)
            await client.hello()
            client.close()
