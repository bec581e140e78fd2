"""Failed sign-ins: how many an address may have."""

import asyncio
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Hashable
from weakref import WeakValueDictionary

from scheduler.errors import TooManyRequests

MOST = 10
"""Failed sign-ins that an address may have in ten minutes: a person needs fewer, a guesser more."""
WINDOW_S = 600
ADDRESSES_MOST = 10_000
"""Addresses that are remembered; those that failed longest ago are forgotten first."""


class Recent:
    """Times of what happened in the last `window_s` seconds, by key: `most` of each at most.

    Of more than `keys_most` keys those that are longest untouched are forgotten.
    """

    def __init__(self, most: int, window_s: float, keys_most: int) -> None:
        self._most, self._window_s, self._keys_most = most, window_s, keys_most
        self._times: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def add(self, key: Hashable, now: float) -> int | None:
        """Count one at `now` (seconds of any clock that only grows), and return None.

        Where there were so many, count none, and return in how many seconds one more may be.
        """
        times = self._times.setdefault(key, deque())
        while times and times[0] <= now - self._window_s:
            times.popleft()
        if len(times) >= self._most:
            return int(times[0] + self._window_s - now) + 1
        times.append(now)
        self._times.move_to_end(key)
        while len(self._times) > self._keys_most:
            self._times.popitem(last=False)
        return None

    def take_back(self, key: Hashable) -> None:
        """Count the last one no more."""
        times = self._times.get(key)
        if times:
            times.pop()


class Tries:
    """Remembers failures, in this process."""

    def __init__(self) -> None:
        self._failed = Recent(MOST, WINDOW_S, ADDRESSES_MOST)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, address: str) -> asyncio.Lock:
        """Return what to hold during a try: one at a time, or those under way count as failed."""
        return self._turns.setdefault(_network(address), asyncio.Lock())

    def begin(self, address: str, now: float) -> None:
        """Count a try as failed until that is taken back. Raises TooManyRequests.

        `now` in seconds of any clock that only grows.
        """
        wait = self._failed.add(_network(address), now)
        if wait is not None:
            raise TooManyRequests(
                f"too many sign-ins from your address failed; try again in {wait} s",
                retry_after=wait,
            )

    def taken_back(self, address: str) -> None:
        """Take back the count of a try: it succeeded, or nobody could say."""
        self._failed.take_back(_network(address))


def _network(address: str) -> str:
    """Return what one person has: an IPv4 address, or the 64 bits before an IPv6 one's own."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)
