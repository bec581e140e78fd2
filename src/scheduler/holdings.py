"""What one process holds of the queue: claimed runs that wait for their instant, then a worker."""

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from uuid import UUID

from scheduler.run import Run

RATE_S = 1.0
Room = tuple[Counter[UUID], Callable[[UUID], int]]
"""What each service has under way, and how much it may have."""


class Rate:
    """Measures how many runs a second this process gets done while more are ready."""

    def __init__(self, most: int, least: int) -> None:
        self.most, self.least = most, least
        self._since = time.monotonic()
        self._done = 0
        self._rate: float | None = None

    def done(self, *, saturated: bool) -> None:
        """Count one run; `saturated` says that others were ready."""
        self._done += 1
        now = time.monotonic()
        if now - self._since < RATE_S:
            return
        if saturated:
            measured = self._done / (now - self._since)
            self._rate = measured if self._rate is None else (self._rate + measured) / 2
        self._since, self._done = now, 0

    @property
    def room(self) -> int:
        """How many runs may be held: two seconds' worth."""
        if self._rate is None:
            return self.most
        return max(self.least, min(self.most, int(self._rate * 2)))


class Ready:
    """Ready runs, a heap per service, taken in turn."""

    def __init__(self) -> None:
        self._heaps: dict[UUID, list[tuple[int, int, int, Run]]] = {}
        self._turns: deque[UUID] = deque()
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def push(self, run: Run) -> None:
        """Add a run."""
        heap = self._heaps.get(run.service_id)
        if heap is None:
            heap = self._heaps[run.service_id] = []
            self._turns.append(run.service_id)
        heapq.heappush(heap, (-run.priority, run.due, next(self._numbers), run))

    def runs(self) -> list[Run]:
        """Return all of them, in no order."""
        return [entry[3] for heap in self._heaps.values() for entry in heap]

    def pop(self, busy: Counter[UUID], share: Callable[[UUID], int]) -> Run | None:
        """Return the first run of the next service that has less than its share under way."""
        for _ in range(len(self._turns)):
            service = self._turns[0]
            self._turns.rotate(-1)
            if busy[service] >= share(service):
                continue
            heap = self._heaps[service]
            run = heapq.heappop(heap)[3]
            if not heap:
                del self._heaps[service]
                self._turns.remove(service)
            return run
        return None


class Holdings:
    """Every run this process has claimed and not settled."""

    def __init__(self) -> None:
        self.held: dict[UUID, Run] = {}
        self.waiting: dict[UUID, Run] = {}
        """Those of them that have not been started."""
        self.waiting_of: Counter[UUID] = Counter()
        """How many wait, by service."""
        self.tasks: Counter[UUID] = Counter()
        """How many wait, by task."""
        self.ready = Ready()
        self._slotted_last = False
        self.slotted = Ready()
        """Ready, and of those of which only so many may be under way here: they take no worker
        while they wait for that."""
        self._coming: list[tuple[int, int, Run]] = []
        self._numbers = itertools.count()

    @property
    def next_due(self) -> int | None:
        """When the earliest run that is not ready yet is due, in ms since 1970."""
        return self._coming[0][0] if self._coming else None

    def hold(self, runs: Iterable[Run]) -> None:
        """Take in runs, to wait for their instants."""
        for run in runs:
            self.held[run.id] = run
            self.waiting[run.id] = run
            self.waiting_of[run.service_id] += 1
            if run.task_key:
                self.tasks[run.task_key] += 1
            heapq.heappush(self._coming, (run.due, next(self._numbers), run))

    def ripen(self, earliest: float, most: int) -> None:
        """Make ready what is due at `earliest` (ms since 1970) or before, at most so many."""
        for _ in range(most):
            if not self._coming or self._coming[0][0] > earliest:
                return
            run = heapq.heappop(self._coming)[2]
            if self.is_waiting(run):
                (self.slotted if run.slotted else self.ready).push(run)

    def is_waiting(self, run: Run) -> bool:
        """Say whether a run is still to be started; it may have been withdrawn."""
        return self.waiting.get(run.id) is run

    def withdraw(self, run: Run) -> Run:
        """Take a run from those that wait: it is started, or goes back."""
        if not self.is_waiting(run):
            return run
        del self.waiting[run.id]
        _count_down(self.waiting_of, run.service_id)
        if run.task_key:
            _count_down(self.tasks, run.task_key)
        return run

    def withdraw_where(self, condition: Callable[[Run], bool]) -> list[Run]:
        """Withdraw every waiting run of which the condition holds; return them."""
        found = [run for run in self.waiting.values() if condition(run)]
        return [self.withdraw(run) for run in found]

    def pop(self, room: Room, slots: Room) -> Run | None:
        """Return the next that is ready: in turn one of `slotted`, where `slots` has one, and
        another.
        """
        self._slotted_last = not self._slotted_last
        kinds = [(self.ready, room), (self.slotted, slots)]
        for ready, (busy, share) in kinds if self._slotted_last else reversed(kinds):
            run = ready.pop(busy, share) if ready else None
            if run is not None:
                return run
        return None

    def withdraw_slotted(self, before: int) -> list[Run]:
        """Withdraw those ready ones of which only so many may be under way, due before a time."""
        runs = [run for run in self.slotted.runs() if self.is_waiting(run)]
        self.slotted = Ready()
        for run in runs:
            if run.due >= before:
                self.slotted.push(run)
        return [self.withdraw(run) for run in runs if run.due < before]

    def forget(self, run: Run) -> None:
        """Let go of a run: it is settled, given back, or somebody else's."""
        if self.held.get(run.id) is run:
            del self.held[run.id]


def _count_down(counter: Counter[UUID], key: UUID) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
