"""Waits: how long calls have been waiting for specs that are on their way."""

from collections import OrderedDict
from uuid import UUID

from scheduler.actions import Call

WAIT_S = 0.2
WAIT_MOST_S = 5.0
WAIT_PART = 0.25
"""Of the time it has waited already, how long a call waits before it looks for its spec again."""
REMEMBERED = 100_000
"""Runs; one that was forgotten begins to wait anew."""


class Waits:
    """Counts from the first try of a call in this process: before it, nothing could be looked for.

    So what was due while nobody worked, or had to queue, waits as long as any other.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._began: OrderedDict[UUID, int] = OrderedDict()
        """In ms since 1970, by run."""

    def next_s(self, call: Call) -> float | None:
        """Return in how many seconds a call looks again; None where it has waited long enough."""
        began = self._began.setdefault(call.run_id, call.at)
        waited_s = max(call.at - began, 0) / 1000
        left_s = self._most_s - waited_s
        if left_s <= 0:
            self.over(call)
            return None
        if len(self._began) > REMEMBERED:
            self._began.popitem(last=False)
        return min(max(WAIT_S, waited_s * WAIT_PART), WAIT_MOST_S, left_s)

    def over(self, call: Call) -> None:
        """Forget a call: it waits no more."""
        self._began.pop(call.run_id, None)
