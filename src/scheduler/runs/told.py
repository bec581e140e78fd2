"""What is told of runs: those that were replayed or cancelled, one by one or by a filter."""

from collections.abc import Mapping

from scheduler import audit
from scheduler.audit import Act, Change, Entry
from scheduler.db import Conn, utc
from scheduler.history import Finished
from scheduler.run import Started
from scheduler.service import Service
from scheduler.wording import words


async def one(conn: Conn, service: Service, verb: str, run: Started | Finished, now: int) -> None:
    """Write what somebody did to a run, at `now` (ms); its task's page has it."""
    change = Change("run", None, str(run.id))
    ref = run.task_id or str(run.id)
    key = run.task_key if run.of_task else None
    entry = Entry(kind="run", ref=ref, key=key, verb=verb, changes=[change])
    await audit.write(conn, service.id, service.by, [entry], utc(now))


class Many:
    """One entry for all runs that a filter means: how many they are, and the filter."""

    def __init__(self, service: Service, verb: str, sent: Mapping[str, str], now: int) -> None:
        self._verb, self._sent = verb, sent
        self._act = Act(service.id, service.by, utc(now))
        self.count = 0
        """Runs of the transactions that are over."""

    async def tell(self, conn: Conn, count: int, _now: int) -> None:
        """Write that so many more are done, if this transaction is."""
        runs = Change("runs", None, f"{self.count + count:,}")
        filters = [Change(name, None, words(value)) for name, value in self._sent.items()]
        ref = self._sent.get("task", "")
        entry = Entry(kind="run", ref=ref, verb=self._verb, changes=[runs, *filters])
        await self._act.tell(conn, entry)
