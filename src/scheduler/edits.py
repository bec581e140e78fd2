"""An edit, as the machine sees it: what its task owes is settled, the rest is planned anew."""

import msgspec

from scheduler import backfills, clock, lines, planner, planning, queue, versions
from scheduler.db import Conn, utc
from scheduler.definition import Definition
from scheduler.history import Gap
from scheduler.planning import Plan, Planned, new_run

CATCH_UP_PASSES = 20
"""How much of an overdue task an edit makes up for; the rest is a gap."""


async def replan(
    conn: Conn, before: Definition, after: Definition, planned: Planned, *, window_ms: int,
    at_once: bool = False, asked: int | None = None, until: int = 0, anew: bool = False,
    passed_by: str = "paused",
) -> int | None:  # fmt: skip
    """Make the runs of an edited task, whose plan is locked; return the earliest instant made.

    An edit that leaves the instants as they are leaves the plan where it is, however far behind.
    What was due before the edit stays due; what some replica holds already and is still wanted
    gets the new version, and the holder drops the rest when it hears of it. An instant of the new
    trigger that passes while this waits for locks is due: `asked` is when the edit was read, in ms.
    Up to `until` (ms) runs are made even where that lies beyond the window. `anew` replans what
    reads the same: its time zone is another one now. `passed_by` is the word for what a pause that
    it ends took.
    """
    start = await clock.database_ms(conn) if asked is None else asked
    await versions.keep(conn, before, after, utc(start))
    if _stays(before, after) and not (at_once or anew) and until <= planned.until:
        await _renew(conn, before, after, start)
        return None
    owed = await _catch_up(conn, before, planned, start, passed_by)
    taken = await lines.take_back(conn, after.line, utc(start))
    standing = await lines.standing(conn, after.line, utc(start))
    now = await clock.database_ms(conn)
    passed = before.due.between(start, now) if before.due else ()
    runs = [run for run in (new_run(after, at) for at in passed) if run.id in taken]
    # What is planned anew counts anew: not what passed meanwhile, has ended, or was never counted,
    # because the edit before this one did not want it.
    held = {s.id for s in standing if not s.fixed and s.at > now}
    again = sum(s.id in held and s.version >= before.version for s in standing)
    if at_once and after.status == "paused":
        owed.gaps.append(planning.passed_over(after, now))
    at_once = at_once and after.due is not None
    kept = planned.runs + owed.spent - len(taken) - again + len(runs) + at_once
    gone = [s.at for s in standing if s.id not in held] + [run.at for run in runs]
    made = planning.plan(after, start, kept, start, max(start + window_ms, until), gone=gone)
    runs += [new_run(after, now)] if at_once else []
    # In this order: what its holder drops before is made again, and after it is not dropped.
    await lines.reversion(conn, after.line, planner.stance_of(after), utc(now), made.ids)
    runs += made.runs
    await queue.enqueue(conn, runs, utc(now))
    counted = Plan(after, [], made.planned_until, made.next_plan_at, owed.gaps)
    counted.back = planned.runs + sum(g.count for g in owed.gaps) - kept - len(made.instants)
    await planner.write(conn, [counted], utc(now))
    if after.status == "disabled":
        await backfills.stop(conn, after.line, utc(now))
    return min((run.at for run in runs), default=None)


def _stays(before: Definition, after: Definition) -> bool:
    """Say whether an edit leaves a task's instants as they are, and how they are judged."""
    return not before.damaged and all(
        (
            before.instants == after.instants,
            before.bounds == after.bounds,
            before.status == after.status,
            before.paused_until == after.paused_until,
            before.policy.misfire == after.policy.misfire,
            before.misfire_grace_ms == after.misfire_grace_ms,
        )
    )


async def _renew(conn: Conn, before: Definition, after: Definition, now: int) -> None:
    """Give a task's runs what the edit says of them, but for those it had taken back before."""
    rows = await lines.standing(conn, after.line, utc(now))
    wanted = {row.id for row in rows if row.version >= before.version}
    await lines.reversion(conn, after.line, planner.stance_of(after), utc(now), wanted)


class Owed(msgspec.Struct):
    """What an edit settled of the time before it."""

    gaps: list[Gap]
    made: list[int] = []
    """Overdue instants that became runs."""
    late: int = 0
    """Instants in the gaps that had been made, and counted, before."""

    @property
    def spent(self) -> int:
        """How many instants that is."""
        return len(self.made) + sum(gap.count for gap in self.gaps) - self.late


async def _catch_up(
    conn: Conn, before: Definition, planned: Planned, now: int, passed_by: str
) -> Owed:
    """Settle what the task owed before an edit: overdue instants, or the gap of a pause."""
    owed = await _owed(conn, before, planned, now, passed_by)
    if owed.made or owed.gaps:  # its plan lay behind
        behind = [before] if before.due is not None else []
        late = (await planner.late_of(conn, behind, now)).get(before.key, [])
        clear = planning.spared(before, late, owed.made)
        if clear is not None:
            late = [at for at in late if at != clear]
            await queue.enqueue(conn, [new_run(before, clear)], utc(now))
        owed.gaps = planning.with_late(owed.gaps, before, late)
        owed.late = len(late)
    return owed


async def _owed(conn: Conn, before: Definition, planned: Planned, now: int, passed_by: str) -> Owed:
    planned_until, owed, gone = planned.until, Owed([]), list[int]()
    if before.status == "paused":
        until = now if before.paused_until is None else min(now, before.paused_until - 1)
        gone = await planner.kept(conn, before, planned_until)
        owed.gaps += planning.paused(before, planned_until, planned.runs, until, gone, passed_by)
        if until == now:
            return owed
        # The pause is over, and no tick has come by yet.
        before = msgspec.structs.replace(before, status="active", paused_until=None)
        planned_until = max(planned_until, until)
    for _ in range(CATCH_UP_PASSES):
        if before.due is None or planned_until >= now:
            return owed
        made = planning.plan(before, planned_until, planned.runs + owed.spent, now, now, gone=gone)
        await queue.enqueue(conn, list(made.runs), utc(now))
        owed.gaps += made.gaps
        owed.made += made.instants
        if made.next_plan_at is None or made.planned_until == planned_until:
            return owed
        planned_until = made.planned_until
    due = planning.within(before, before.due, planned_until, planned.runs + owed.spent, now)
    rest = planning.gap(before, due, planned_until, now, "misfire")
    owed.gaps += [rest] if rest else []
    return owed
