"""Who really calls: the address that trusted reverse proxies say a request comes from."""

import ipaddress
import re
from collections.abc import Iterable, Mapping

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HOPS_MOST = 100
"""Of a header's addresses: the last of so many are looked at."""


class Proxies:
    """The reverse proxies whose word counts.

    Each proxy appends the address that it was called from, so the list is read from its end: the
    first address that is no trusted proxy's is the caller's. What stands before it is what the
    caller says of itself.
    """

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(cidr) for cidr in cidrs]

    def caller(self, peer: str | None, headers: Mapping[str, str]) -> str | None:
        """Return the caller's address; the peer's own, where that is no trusted proxy.

        X-Forwarded-For counts, else Forwarded (RFC 7239). Header names are in lower case, a
        repeated header is one with commas. An entry that is no address (`unknown`, `_hidden`)
        ends the list: the proxy after it is all that is known.
        """
        found = address(peer or "") if self._networks else None
        if found is None or not self._trusts(found):
            return peer
        for hop in reversed(_hops(headers)):
            named = address(hop)
            if named is None:
                break
            found = named
            if not self._trusts(found):
                break
        return str(found)

    def trusts(self, peer: str) -> bool:
        """Say whether this is the address of one of them."""
        found = address(peer) if self._networks else None
        return found is not None and self._trusts(found)

    def _trusts(self, found: Address) -> bool:
        return any(found in network for network in self._networks)


def address(text: str) -> Address | None:
    """Read `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7` or `[2001:db8::7]:80`; None for others."""
    text = text.strip().strip('"')
    bracketed = BRACKETED.match(text)
    if bracketed is not None:
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


BRACKETED = re.compile(r"\[([^\]]*)\](?::\d{1,5})?\Z")
FOR = re.compile(r"(?:^|;)\s*for\s*=\s*(\"[^\"]*\"|[^;\s]*)", re.IGNORECASE)


def _hops(headers: Mapping[str, str]) -> list[str]:
    listed = headers.get("x-forwarded-for")
    if listed is not None:
        return listed.split(",")[-HOPS_MOST:]
    hops = []
    for element in headers.get("forwarded", "").split(",")[-HOPS_MOST:]:
        found = FOR.search(element.strip())
        hops.append(found[1] if found else "")
    return hops
