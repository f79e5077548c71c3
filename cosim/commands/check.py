"""``cosim check``: which store forgot its fence."""

from __future__ import annotations

import inspect
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from cosim.commands.completion import guest_or_file
from cosim.commands.options import EDGES, run_options, spec_from
from cosim.commands.scenario_option import scenario_option, take_scenario
from cosim.errors import CosimError, UsageError
from cosim.session.backends import FOR_CHECK

if TYPE_CHECKING:
    from cosim.debug.call_chain import Chain
    from cosim.models.result import Ending, Origin
    from cosim.run.plan import Plan
    from cosim.run.run_spec import RunSpec
    from cosim.session.backends.plugin import Plugin
    from cosim.session.protocol import Outcome
    from cosim.trace.location import Location
    from hypervisor_model.fences import FenceChecker

_FILTER = 1
"""Slots of the access filter: the fewest accesses are dropped."""
_INTERRUPTED = 130


@dataclass(frozen=True)
class _Checked:
    """What a check has to report on."""

    checker: FenceChecker
    origin: Origin
    ending: Ending
    error: BaseException | None = None
    """What cut the run short."""
    chains: dict[int, Chain] = field(default_factory=dict)
    """By the event of a store: who called it."""


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim check micro --scenario bug-unmap\n"
    "  cosim check linux --workload 'ls -lR /' --sarif check.sarif\n"
    "  cosim check --kernel kernel.elf --from start --suppress known.toml --json\n"
    "  cosim check t\n"
)
@click.argument("guest", metavar="GUEST|TRACE", required=False, shell_complete=guest_or_file)
@run_options("check")
@scenario_option
@click.option(
    "--filter", "slots", type=int, metavar="SLOTS", help="Access-filter slots.  Default: 1."
)
@click.option("--legal", is_flag=True, help="List also what the specification allows.")
@click.option(
    "--suppress", type=click.Path(path_type=Path), metavar="FILE", help="Known findings (TOML)."
)
@click.option("--sarif", type=click.Path(path_type=Path), metavar="FILE", help="Write SARIF here.")
@click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML here."
)
@click.option(
    "--logs", type=click.Path(path_type=Path), metavar="DIR", help="Keep the session's logs here."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    guest: str | None,
    scenario: str | None,
    slots: int | None,
    legal: bool,
    suppress: Path | None,
    sarif: Path | None,
    junit: Path | None,
    as_json: bool,
    logs: Path | None,
    offline: bool,
    from_: str | None,
    **given: Any,
) -> int:
    """Find the stores to page tables whose fence is missing, late or too narrow.

    GUEST is a name from `cosim guest list`; leave it out with --kernel.  TRACE is a folder that
    `cosim capture` wrote, or a URI such as s3://BUCKET/PREFIX.

    QEMU drops all translations at every fence, so a guest that forgets one runs well there and
    fails on hardware.  This command looks at every access.  It reports the store that owed a fence
    if hardware that keeps translations as long as the specification allows could get the access
    wrong.  The exit status is 1 if there is such a store.
    """
    from cosim import output
    from cosim.check import document, exchange, text
    from cosim.check import suppress as suppressions
    from cosim.files import write_atomically
    from cosim.kernel.places import Places
    from cosim.trace.locate import locate
    from cosim.trace.run_kernel import kernel_of

    known = [] if suppress is None else suppressions.read(suppress, document.KINDS)
    of_trace = guest is not None and _is_trace(guest)
    if guest is not None and of_trace:
        others = {"offline": offline or None, "logs": logs}
        _refuse_with_trace(scenario, slots, given | others, from_)
        checked = _check_trace(locate(guest), legal)
    else:
        spec = _spec(guest, scenario, slots, given | {"from": from_})
        checked = _check_run(spec, legal, logs, offline=offline)
    places = Places(kernel_of(checked.origin.guest))
    found = document.build(
        checked.checker, checked.origin, checked.ending, places, known, checked.chains
    )
    if sarif is not None:
        write_atomically(sarif, exchange.sarif(found))
    if junit is not None:
        write_atomically(junit, exchange.junit(found))
    if as_json:
        output.print_json(found)
    else:
        output.print_table(text.render(found))
        if found["findings"] and not of_trace and checked.origin.machine.harts == 1:
            output.print_line("This stops before the first access that depends on a missing fence:")
            output.print_line(f"  {_debugging()}")
    error = checked.error
    if isinstance(error, KeyboardInterrupt):
        from cosim.machine import interrupts

        interrupts.over()
        output.note("cosim: interrupted")
        return _INTERRUPTED
    if error is not None:
        raise error
    return int(bool(found["findings"]))


def _is_trace(text: str) -> bool:
    """Return True if a folder or URI is meant; a guest's name is one unless it holds a trace."""
    from cosim.trace.locate import is_uri

    if is_uri(text):
        return True
    path = Path(text)
    return (path / "_manifest.jsonl").exists() or ("/" in text and path.is_dir())


def _refuse_with_trace(
    scenario: str | None, slots: int | None, given: dict[str, Any], from_: str | None
) -> None:
    options = {"scenario": scenario, "filter": slots, "from": from_, **given}
    for key, value in options.items():
        # What can be given several times is empty if it is not given.
        if value not in (None, ()):
            name = key.replace("_", "-")
            raise UsageError(f"--{name} describes a run, and a trace was run already; leave it out")


def _spec(
    guest: str | None, scenario: str | None, slots: int | None, given: dict[str, Any]
) -> RunSpec:
    if given.get("backend") not in (None, FOR_CHECK):
        raise UsageError("--backend: the check needs every access, which only the plugin sees")
    take_scenario(scenario, guest, given)
    if guest is not None:
        _refuse_unknown(guest)
    given |= {"backend": FOR_CHECK, "filter": _FILTER if slots is None else slots}
    return spec_from(guest, FOR_CHECK, **given)


def _debugging() -> str:
    """Return the command that debugs the run that this command was asked to check."""
    from cosim.commands import debug

    context = click.get_current_context()
    same = {parameter.name for parameter in debug.command.params} - {"logs", "backend", "offline"}
    words = ["cosim", "debug"]
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if name not in same or not given:
            continue
        value = context.params[name]
        for one in value if parameter.multiple else [value]:
            if isinstance(parameter, click.Argument):
                words.append(str(one))
            elif isinstance(parameter, click.Option) and parameter.is_flag:
                words.append(parameter.opts[0])
            else:
                words += [parameter.opts[0], str(one)]
    return shlex.join([*words, "--at", "finding"])


def _refuse_unknown(text: str) -> None:
    import guest

    if text not in guest.NAMES and not text.endswith(".toml"):
        raise UsageError(
            f"{text} is neither a folder that `cosim capture -o DIR` wrote nor a guest; "
            f"the guests are {', '.join(guest.NAMES)}"
        )


def _checker(origin: Origin, legal: bool, *, ordered: bool = True) -> FenceChecker:
    from cosim.output import progress
    from hypervisor_model.events import Kind, empty
    from hypervisor_model.fences import FenceChecker

    with progress("loading the checker (the first time compiles it: half a minute)"):
        first = empty(1)
        first["kind"] = Kind.MARK
        FenceChecker(origin.machine).feed(first)
        return FenceChecker(origin.machine, legal=legal, ordered=ordered)


def _check_trace(place: Path | Location, legal: bool) -> _Checked:
    from cosim.output import progress
    from cosim.trace.reader import TraceReader
    from hypervisor_model.events import KINDS, Kind

    trace = TraceReader(place)
    if trace.origin.stream.accesses == "none":
        raise UsageError(f"{place} has no accesses to check; capture it with the plugin")
    checker = _checker(trace.origin, legal, ordered=trace.version >= KINDS[Kind.FENCE_ORDER].since)
    with progress("check") as step:
        done = 0
        for batch in trace.batches():
            checker.feed(batch)
            done += len(batch)
            step(done, trace.events)
    return _Checked(checker, trace.origin, trace.ending)


def _check_run(spec: RunSpec, legal: bool, logs: Path | None, *, offline: bool) -> _Checked:
    from cosim import output
    from cosim.commands.logs import folder_for
    from cosim.commands.one_run import prepare
    from cosim.run.plan import resolve
    from cosim.session.execution import available

    prepare(spec, offline=offline)
    plan = resolve(available(spec, output.note))
    with folder_for(logs) as folder:
        checked = None
        try:
            checked = _run_in(folder, plan, legal)
        finally:
            went_through = checked is None or checked.error is None
            if logs is None and (went_through or not any(folder.iterdir())):
                shutil.rmtree(folder, ignore_errors=True)
        error = checked.error
        if isinstance(error, CosimError) and error.log is None and folder.exists():
            error.log = str(folder)
        return checked


def _run_in(folder: Path, plan: Plan, legal: bool) -> _Checked:
    """Run the guest once, with its logs in ``folder``, and once more up to each finding.

    A guest of several harts runs once only, because QEMU does not record it.
    """
    from dataclasses import replace

    from cosim import output
    from cosim.machine.configuration import Timing
    from cosim.models.pipeline import Pipeline
    from cosim.session.execution import execute
    from cosim.session.origin import origin
    from cosim.session.protocol import Watchers
    from cosim.session.recording import nameless_file
    from cosim.session.view import live_view

    about = origin(plan)
    checker = _checker(about, legal)
    with nameless_file(folder) as log:
        if about.machine.harts == 1:
            recorded = Timing("record", log, typed=plan.typed)
            plan = replace(plan, backend=replace(cast("Plugin", plan.backend), timing=recorded))
        with live_view() as view:
            watchers = Watchers(keep=checker.feed, view=view, note=output.note)
            outcome = execute(plan, folder, Pipeline(about, {}), watchers=watchers)
        if outcome.ending is None:
            assert outcome.error is not None
            raise outcome.error
        return _Checked(
            checker,
            about,
            outcome.ending,
            outcome.error,
            _chains(plan, log, checker, outcome, folder),
        )


def _chains(
    plan: Plan, log: Path, checker: FenceChecker, outcome: Outcome, folder: Path
) -> dict[int, Chain]:
    """Return who called the stores with findings."""
    from cosim.debug.call_chain import Wanted, call_chains
    from cosim.debug.counted_events import Place
    from cosim.kernel.places import Places
    from cosim.output import progress
    from cosim.session.origin import origin
    from cosim.trace.run_kernel import kernel_of

    culprits = {finding.culprit.event: finding.culprit for finding in checker.findings}
    if outcome.error is not None or outcome.counts is None:
        return dict.fromkeys(culprits, "the run was cut short")
    if checker.machine.harts > 1:
        return dict.fromkeys(culprits, "a run of several harts cannot be repeated up to there")
    wanted = []
    for event, culprit in sorted(culprits.items()):
        if culprit.icount is not None:
            place = Place(outcome.counts.of(culprit.icount), culprit.pc)
            entry = None if culprit.entry is None else culprit.entry & ~7
            wanted.append(Wanted(event, place, entry, culprit.old))
    if not wanted:
        return {}
    with progress("call chains") as step:
        places = Places(kernel_of(origin(plan).guest))
        return call_chains(plan, log, wanted, places, folder, step)


command.help = f"{inspect.cleandoc(command.help or '')}\n\n{EDGES}"
