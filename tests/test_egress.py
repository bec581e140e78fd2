"""The rules of egress, asked directly; test_outbound.py has them in front of real sockets."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.config import Egress
from scheduler.egress import Rules
from scheduler.errors import StartupError

METADATA = (
    "169.254.169.254", "::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1", "2001:0:5601:5601::", "2001:0:808:808:0:0:5601:5601",
    "fd00:ec2::254", "100.100.100.200", "fd20:ce::254",
)  # fmt: skip
NEVER = (
    "169.254.1.1", "fe80::1", "fe80::1%eth0", "0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0",
    "224.0.0.1", "239.1.1.1", "ff02::1", "255.255.255.255",
)  # fmt: skip
PRIVATE = ("127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "fd00::1")
PUBLIC = ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


def rules(**settings):
    return Rules(Egress(**settings))


@pytest.mark.parametrize("address", METADATA + NEVER)
def test_some_addresses_are_never_called_whatever_is_allowed(address):
    for each in (rules(), rules(allow=["0.0.0.0/0", "::/0"]), rules(allow=["x.test"])):
        assert each.refusal("x.test", address, 80)


@pytest.mark.parametrize("address", PRIVATE + PUBLIC)
def test_private_and_public_addresses_are_called(address):
    assert rules().refusal("x.test", address, 80) is None


def test_public_only_refuses_all_else():
    public = rules(public_only=True)
    assert all(public.refusal("x.test", address, 80) for address in PRIVATE)
    assert not any(public.refusal("x.test", address, 80) for address in PUBLIC)
    assert public.refusal("x.test", "64:ff9b::a01:203", 80)
    assert public.refusal("x.test", "2002:a01:203::1", 80)


def test_deny_wins_over_allow():
    both = rules(allow=["10.0.0.0/8", "x.test"], deny=["10.1.0.0/16", "a.x.test"])
    assert both.refusal("y.test", "10.2.0.1", 80) is None
    assert "egress.deny" in both.refusal("x.test", "10.1.0.1", 80)
    assert "egress.deny" in both.refusal("x.test", "::ffff:10.1.0.1", 80)
    assert "egress.deny" in both.refusal_of_name("A.X.Test.", 80)


def test_allow_leaves_nothing_else():
    allow = rules(allow=["10.0.0.0/8", "*.x.test", "bücher.test", "::1"])
    assert allow.refusal("y.test", "10.2.0.1", 80) is None
    assert allow.refusal("y.test", "::ffff:10.2.0.1", 80) is None
    assert allow.refusal("::1", "::1", 80) is None
    assert allow.refusal("a.b.X.test.", "192.168.0.1", 80) is None
    assert allow.refusal("xn--bcher-kva.test", "8.8.8.8", 80) is None
    assert allow.refusal("x.test", "192.168.0.1", 80)
    assert allow.refusal("ax.test", "192.168.0.1", 80)
    assert allow.refusal("y.test", "64:ff9b::a02:1", 80)


def test_a_name_that_only_names_could_allow_is_not_even_looked_up():
    assert rules(allow=["x.test"]).refusal_of_name("y.test", 80)
    assert rules(allow=["x.test"]).refusal_of_name("x.test", 80) is None
    assert rules(allow=["x.test", "10.0.0.0/8"]).refusal_of_name("y.test", 80) is None


def test_the_scheduler_and_its_database_are_refused():
    own = Rules(
        Egress(allow=["127.0.0.1", "db.invalid"]), [("db.invalid", 5432), ("/run/pg", 5432)]
    )
    own.add_own("127.0.0.1", 8080)
    assert own.refusal("localhost", "127.0.0.1", 8080)
    assert own.refusal("localhost", "::ffff:127.0.0.1", 8080)
    assert own.refusal("localhost", "127.0.0.1", 8081) is None
    assert own.refusal_of_name("DB.invalid.", 5432)
    assert own.refusal_of_name("db.invalid", 80) is None


@pytest.mark.parametrize("listening", ["0.0.0.0", "::"])
def test_listening_everywhere_refuses_every_address_of_this_machine(listening):
    own = Rules(Egress(), [(listening, 8080)])
    assert own.refusal("x.test", "127.0.0.1", 8080)
    assert own.refusal("x.test", "127.9.9.9", 8080)
    assert own.refusal("x.test", "8.8.8.8", 8080) is None
    assert own.refusal("x.test", "127.0.0.1", 80) is None


def test_an_own_name_covers_its_addresses():
    own = Rules(Egress(), [("localhost", 8080)])
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    assert own.refusal("x.test", "127.0.0.1", 8080)


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.1/8", "10.0.0", "300.1.1.1", "http://x", "x:80", "a*b.test", "*", "", "a/b", "::1::"],
)
def test_a_wrong_entry_is_named(entry):
    with pytest.raises(StartupError, match=r"egress\.deny: '"):
        rules(deny=[entry])


@given(st.ip_addresses())
def test_every_address_gets_an_answer(address):
    for each in (rules(), rules(public_only=True), rules(allow=["8.8.8.8"])):
        why = each.refusal("x.test", str(address), 80)
        assert why is None or str(address) in why or ":" in str(address)
