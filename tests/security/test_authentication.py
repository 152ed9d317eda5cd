"""Who is let in?"""

from __future__ import annotations

import pytest

from gateway.api import AccessRefused, Credentials
from gateway.security import Authentication

NOBODY = Credentials(peer="192.0.2.1:4000")
GUEST_HERE = Credentials("password", "guest", b"guest", peer="127.0.0.1:4000", loopback=True)
GUEST_ELSEWHERE = Credentials("password", "guest", b"guest", peer="192.0.2.1:4000")
SOMEONE_ELSEWHERE = Credentials("password", "guest", b"other", peer="192.0.2.1:4000")


async def test_a_peer_without_credentials_is_let_in_by_the_setting():
    principal = await Authentication(anonymous=True).authenticate(NOBODY)
    assert principal.user == "anonymous"
    assert principal.vhost == "/"
    assert principal.authorize is None


async def test_credentials_from_loopback_are_let_in_as_anonymous_while_there_are_no_users():
    authentication = Authentication(anonymous=True)
    someone = Credentials("password", "someone", b"guest", peer="127.0.0.1:4000", loopback=True)
    assert await authentication.authenticate(someone) is await authentication.authenticate(NOBODY)


@pytest.mark.parametrize("credentials", [GUEST_HERE, GUEST_ELSEWHERE])
async def test_guest_is_let_in_by_that_name_while_there_are_no_users(credentials):
    authentication = Authentication(anonymous=True)
    guest = await authentication.authenticate(credentials)
    assert guest.user == "guest"
    assert authentication.decide(GUEST_HERE) is guest
    assert authentication.decide(Credentials("password", "guest", b"other", loopback=True)).user == "anonymous"


async def test_credentials_from_another_machine_are_refused_as_nothing_can_check_them():
    with pytest.raises(AccessRefused, match=r"user 'guest' at 192\.0\.2\.1:4000"):
        await Authentication(anonymous=True).authenticate(SOMEONE_ELSEWHERE)


async def test_what_has_to_be_checked_is_refused_on_this_machine_too_but_for_guest():
    authentication = Authentication(anonymous=True)
    with pytest.raises(AccessRefused, match="'guest'"):
        await authentication.authenticate(Credentials("password", "guest", b"other", loopback=True, strict=True))
    guest = await authentication.authenticate(Credentials("password", "guest", b"guest", loopback=True, strict=True))
    assert guest.user == "guest"
    assert (await authentication.authenticate(Credentials("external", loopback=True, strict=True))).user == "anonymous"


async def test_a_password_without_a_user_counts_as_credentials():
    with pytest.raises(AccessRefused):
        await Authentication(anonymous=True).authenticate(Credentials(password=b"x"))


@pytest.mark.parametrize("credentials", [NOBODY, GUEST_HERE, SOMEONE_ELSEWHERE, GUEST_ELSEWHERE])
async def test_without_anonymous_access_nobody_is_let_in(credentials):
    with pytest.raises(AccessRefused, match=r"security\.anonymous"):
        await Authentication(anonymous=False).authenticate(credentials)


async def test_the_password_is_never_in_the_text():
    with pytest.raises(AccessRefused) as caught:
        await Authentication(anonymous=False).authenticate(Credentials("password", "u", b"s3cret"))
    assert "s3cret" not in caught.value.text


def test_peers_are_let_in_without_waiting_as_long_as_nothing_has_to_be_waited_for():
    authentication = Authentication(anonymous=True)
    assert authentication.authenticate_now(NOBODY) is authentication.decide(NOBODY)
    with pytest.raises(AccessRefused):
        authentication.authenticate_now(SOMEONE_ELSEWHERE)


@pytest.mark.parametrize("anonymous", [True, False])
def test_whom_a_front_end_has_verified_is_let_in_as_that_user_wherever_it_comes_from(anonymous):
    authentication = Authentication(anonymous=anonymous)
    alice = authentication.decide(Credentials("curve", "alice", peer="192.0.2.1", verified=True))
    assert alice.user == "alice"
    assert authentication.decide(Credentials("password", "alice", peer="127.0.0.1", verified=True)) is alice
    assert authentication.decide(Credentials("curve", "bob", verified=True)) is not alice


def test_verified_says_nothing_about_those_without_a_name():
    with pytest.raises(AccessRefused):
        Authentication(anonymous=False).decide(Credentials(verified=True))
