"""A live co-simulation through the TCG plugin: the guest runs once, at QEMU's speed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from cosim.capture import marks
from cosim.capture.plugin.source import PluginSource
from cosim.errors import CosimError, GuestError, MachineError, UsageError
from cosim.machine import RAM_BASE, Machine, Timing
from cosim.pipeline import Pipeline
from cosim.plan import Plan
from cosim.recording import panic_line
from cosim.region import Edge
from cosim.result import Ending
from cosim.session import Keep, Outcome, Progress, View
from hypervisor_model.events import EventBatch

_VIEW_SECONDS = 0.25


class PluginSession:
    """One session through the plugin.

    :param plan: what to do; its region edges must not be console patterns.
    :param folder: an empty folder for the logs.
    :param pipeline: the models.
    :param keep: takes every batch too.
    :param view: told about progress a few times a second.
    :param timing: how the guest's time runs: a recording that is made (the default) or replayed.
        Instruction counting alone does not repeat a run: two boots of Linux drift apart.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        pipeline: Pipeline,
        *,
        keep: Keep | None = None,
        view: View | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._pipeline = pipeline
        self._keep = keep
        self._view = view
        self._timing = timing or Timing(
            "record", folder / "record.bin", typed=bool(plan.spec.console)
        )
        self._started = time.monotonic()
        self._shown = 0.0
        self._events = 0
        self._icounts: tuple[int, int] | None = None
        self._out_of_time = False
        self._dialogue_error: CosimError | None = None
        self._source = PluginSource(
            plan.qemu.path,
            memory=plan.machine.memory,
            ram_base=RAM_BASE,
            accesses="none" if plan.spec.accesses is False else "all",
            start=_limit(plan.begin),
            end=_limit(plan.end),
            mark=plan.mark_at,
            mark_in_user=plan.mark_at == marks.USER_MARK,
        )

    def run(self) -> Outcome:
        """Do all of it; never raises for what a user can do something about.

        The outcome has a document as soon as the region was reached, whatever happened then.
        """
        error: CosimError | KeyboardInterrupt | None = None
        try:
            self._run()
        except (CosimError, KeyboardInterrupt) as problem:
            error = problem
        if self._events == 0:
            return Outcome(None, error)
        ending = self._ending(error)
        return Outcome(self._pipeline.document(ending), error, ending)

    @property
    def labels(self) -> list[str]:
        """Labels of the marks met, by their number in MARK events."""
        return self._source.labels

    def _run(self) -> None:
        plan = self._plan
        with (
            self._source as source,
            Machine(
                plan.qemu.path,
                plan.machine,
                folder=self._folder,
                name="plugin",
                timing=self._timing,
                plugin_arguments=tuple(source.qemu_args()),
                pass_fds=source.pass_fds,
            ) as machine,
        ):
            source.started()
            machine.resume()
            limit = threading.Timer(plan.time_limit, self._stop_late, [machine.pid])
            dialogue = threading.Thread(target=self._talk, args=[machine], daemon=True)
            limit.start()
            dialogue.start()
            try:
                for batch in source.batches():
                    self._take(batch)
            except MachineError as cut:
                raise self._explain(cut, machine) from None
            finally:
                limit.cancel()
            if self._dialogue_error is not None:
                raise self._dialogue_error
            self._check_end(machine)
            machine.console.check_log()

    def _take(self, batch: EventBatch) -> None:
        self._events += len(batch)
        first, last = int(batch["icount"][0]), int(batch["icount"][-1])
        self._icounts = (self._icounts[0] if self._icounts else first, last)
        if self._keep is not None:
            self._keep(batch)
        self._pipeline.feed(batch)
        now = time.monotonic()
        if self._view is not None and now - self._shown > _VIEW_SECONDS:
            self._shown = now
            place = f"{self._source.instructions:,} instructions"
            seconds = now - self._started
            exits = self._pipeline.exits()
            self._view(Progress("in the region", seconds, self._events, place, exits))

    def _talk(self, machine: Machine) -> None:
        try:
            for step in self._plan.spec.console:
                machine.console.expect(step.expect, step.within)
                machine.console.send(step.send)
        except CosimError as error:
            self._dialogue_error = error
            self._stop(machine.pid)

    def _stop_late(self, pid: int) -> None:
        self._out_of_time = True
        self._stop(pid)

    @staticmethod
    def _stop(pid: int) -> None:
        # QEMU takes SIGTERM for a request to end, and the plugin closes its stream.
        os.kill(pid, signal.SIGTERM)

    def _explain(self, cut: MachineError, machine: Machine) -> CosimError:
        if self._dialogue_error is not None:
            return self._dialogue_error
        if machine.wait(5):
            return MachineError(f"{machine.obituary()}; {cut}", log=str(machine.stderr_log))
        return cut

    def _check_end(self, machine: Machine) -> None:
        """Whether the region was there, and whole.

        :raise GuestError: it was not.
        """
        plan = self._plan
        summary = self._source.summary
        assert summary is not None
        log = str(machine.console_log)
        machine.console.drained(0.0 if summary.region_ended else 5.0)
        if self._out_of_time:
            edge = f"--from {plan.begin.text}" if summary.never_started else f"--to {plan.end.text}"
            raise GuestError(
                f"{plan.time_limit:g} s passed and {edge} was not reached; the guest's last line "
                f"was {machine.console.last_line()!r}; raise --time-limit or choose another edge",
                log=log,
            )
        panic = None if summary.region_ended else panic_line(machine)
        how = f"the guest panicked ({panic})" if panic else "the guest ended"
        if summary.never_started:
            raise GuestError(
                f"{how} before the region began (--from {plan.begin.text}); last line on the "
                f"console: {machine.console.last_line()!r}",
                log=log,
            )
        if not summary.region_ended and plan.end.form != "power-off":
            raise GuestError(f"{how} before the region's end (--to {plan.end.text})", log=log)
        if panic:
            raise GuestError(f"the guest panicked: {panic}", log=log)

    def _ending(self, error: CosimError | KeyboardInterrupt | None) -> Ending:
        summary = self._source.summary
        audit = None
        if summary is not None:
            audit = {
                "checks": 1,
                "missed_writes": summary.missed - summary.missed_only_ad,
                "hardware_ad_updates": summary.missed_only_ad,
            }
        return Ending(
            complete=error is None,
            reason=None if error is None else str(error) or "interrupted",
            region={"instructions": self._instructions()},
            audit=audit,
        )

    def _instructions(self) -> int | None:
        """Instructions in the region, the same in every run of it.

        Where the machine's end is the region's, up to the last event: how long the guest spins
        after it asked to be switched off is up to QEMU.
        """
        summary = self._source.summary
        if summary is None or self._icounts is None:
            return None
        first, last = self._icounts
        return summary.instructions if summary.region_ended else last - first


def _limit(edge: Edge) -> str:
    """``edge`` as the plugin takes it.

    :raise UsageError: the plugin does not read the console.
    """
    match edge.form:
        case "console":
            raise UsageError(
                f"{edge.text!r}: the plugin sees no console; use a mark, an address or a symbol, "
                "or --backend mi"
            )
        case "mark":
            return f"mark:{edge.label}"
        case "address":
            return f"pc:{edge.address:#x}"
        case "boot":
            return "boot"
        case "power-off":
            return "end"
