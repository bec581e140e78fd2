"""A shell command: what is run, and what its end means."""

import asyncio
import signal
from collections.abc import Iterable
from typing import ClassVar, Self
from uuid import UUID

import msgspec

from scheduler import config, sealing
from scheduler.actions import command_rights
from scheduler.actions.command_host import Host, HostError
from scheduler.actions.outcome import Call, Expected, Outcome
from scheduler.confined.job import Job, Result, Rules
from scheduler.db import rfc3339
from scheduler.errors import StartupError
from scheduler.masking import MASK, is_hidden
from scheduler.sealing import Vault


class Command(
    msgspec.Struct, tag_field="kind", tag="command", frozen=True, omit_defaults=True, gc=False
):
    """A command line for `sh -c`."""

    once: ClassVar[bool] = False
    """Whether an unknown outcome is its end."""
    cut: ClassVar[str] = "the command was ended"
    """What became of a run that was cut short."""
    success: ClassVar[Expected] = Expected(((0, 0),))
    """The exit codes that are one, where the task names none."""

    command: str
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """Beside a clean environment; names that say secret, token, key or password are masked and
    sealed."""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.command) + sum(len(name) + len(text) for name, text in self.env.items())

    @property
    def outline(self) -> "Command":
        """Return it without what may be long."""
        return msgspec.structs.replace(self, command="", env={})

    def secrets(self, names: Iterable[str]) -> set[str]:
        """Return those names of variables whose values are masked wherever they are shown."""
        return {name for name in names if is_hidden(name)}

    def masked(self) -> dict[str, str]:
        """Return the environment as it may be shown."""
        secret = self.secrets(self.env)
        return {
            name: MASK if name in secret or sealing.is_sealed(value) else value
            for name, value in self.env.items()
        }

    def sealed(self, vault: Vault, service_id: UUID) -> "Command":
        """Return it as it is stored."""
        secret = self.secrets(self.env)
        if not secret:
            return self
        env = {
            name: vault.seal(value, service_id, sealing.variable(name)) if name in secret else value
            for name, value in self.env.items()
        }
        return msgspec.structs.replace(self, env=env)

    def opened(self, vault: Vault, service_id: UUID) -> "Command":
        """Return it as it was sent. Raises SealError."""
        if not any(map(sealing.is_sealed, self.env.values())):
            return self
        env = {
            name: vault.open(value, service_id, sealing.variable(name))
            for name, value in self.env.items()
        }
        return msgspec.structs.replace(self, env=env)


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A command ready to be run any number of times."""

    command: str
    env: dict[str, str]
    expected: Expected


class CommandPerformer:
    """Runs commands, by a process beside this one; the crew keeps them to so many at once."""

    def __init__(self, settings: config.Commands, rules: Rules | str) -> None:
        """`rules` as `command_rights.judged` returns them, or the sentence why nothing runs."""
        self._settings = settings
        self._closed = rules if isinstance(rules, str) else None
        self._host = None if isinstance(rules, str) else Host(rules)

    @property
    def host(self) -> Host | None:
        """The process that runs them, where any may run."""
        return self._host

    async def __aenter__(self) -> Self:
        if self._host is not None:
            command_rights.prepare(self._host.rules)
            try:
                await self._host.start()
            except HostError as e:
                raise StartupError(str(e)) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._host is not None:
            await self._host.close()

    def prepare(self, action: Command, expected: Expected) -> Prepared:
        """Make a command ready. Raises ValueError."""
        if "\0" in action.command or any("\0" in f"{k}{v}" for k, v in action.env.items()):
            raise ValueError("a command and its env have no NUL in them")
        for name in action.env:
            if not name or "=" in name:
                raise ValueError(f"{name!r} is no name of a variable")
        return Prepared(action.command, action.env, expected)

    async def check(self, service_id: UUID, action: object) -> list[tuple[str, str]]:  # noqa: ARG002
        """Find nothing wrong: reading its fields found what there is."""
        return []

    async def perform(self, prepared: Prepared, call: Call) -> Outcome | None:
        """Run the command; None where it was not to be started after all."""
        if self._host is None:
            return Outcome(succeeded=False, error=self._closed)
        if not call.may_send() or _is_cancelled():
            return None  # nothing was started: that is what the runner is to know
        now = asyncio.get_running_loop().time()
        if call.marks is not None:
            call.marks.asked, call.marks.sent = True, now
        timeout_s = call.deadline - now
        job = Job(prepared.command, _environment(prepared, call), timeout_s)
        return await self._run(self._host, job, prepared.expected)

    async def _run(self, host: Host, job: Job, expected: Expected) -> Outcome:
        cut = asyncio.Event()
        running = asyncio.ensure_future(host.run(job, cut))
        while not running.done():
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                cut.set()  # and see it end: nothing is to be left
            except HostError:
                break
        try:
            ended = running.result()
        except HostError as e:
            return Outcome(succeeded=False, error=str(e), retryable=True)
        if ended is None:
            return Outcome(succeeded=False, unknown=True, error="its supervisor was killed")
        return self._outcome(*ended, job, expected)

    def _outcome(self, result: Result, output: bytes, job: Job, expected: Expected) -> Outcome:
        outcome = Outcome(
            succeeded=result.why == "exited" and (result.code or 0) in expected,
            status_code=result.code,
            body=output,
            truncated=result.truncated,
            retryable=result.why not in ("output", "unfit"),
        )
        if result.why == "cut":
            outcome.unknown = True
        elif not outcome.succeeded:
            outcome.error = self._why(result, job, expected)
        return outcome

    def _why(self, result: Result, job: Job, expected: Expected) -> str:
        """Return why a run failed, in a sentence."""
        limits = self._settings
        if result.error is not None:
            return result.error
        if result.why == "timeout":
            return f"it did not end within {round(job.timeout_s, 2):g} s"
        if result.why == "output":
            return f"it wrote more than {limits.output_bytes} bytes (commands.output_bytes)"
        code = result.code or 0
        if code == 128 + signal.SIGXCPU:
            return f"it used more than {limits.cpu_seconds} s of CPU time (commands.cpu_seconds)"
        if code == 128 + signal.SIGXFSZ:
            return f"it wrote a file of more than {limits.file_bytes} bytes (commands.file_bytes)"
        if code - 128 in signal.valid_signals():
            name = signal.Signals(code - 128).name if code - 128 < 32 else f"signal {code - 128}"
            return f"the command ended with exit code {code} ({name}), expected {expected}"
        return f"the command ended with exit code {code}, expected {expected}"


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _environment(prepared: Prepared, call: Call) -> dict[str, str]:
    """Return the variables that a run gets beside those of its directory."""
    return {
        "SCHEDULER_RUN_ID": str(call.run_id),
        "SCHEDULER_TASK_ID": call.task_id,
        "SCHEDULER_ATTEMPT": str(call.attempt),
        "SCHEDULER_SCHEDULED_FOR": rfc3339(call.scheduled_for) or "",
        **prepared.env,
    }
