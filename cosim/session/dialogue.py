"""The dialogue of a run with its guest: wait for a pattern, then type."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cosim.machine.console import Console
from cosim.run.run_spec import Exchange
from cosim.session.protocol import Note


def hold(
    console: Console,
    steps: Iterable[Exchange],
    note: Note,
    hopeless: Callable[[], bool] = lambda: False,
) -> None:
    """Hold the dialogue ``steps``.

    :param note: is told what the guest has not taken.
    :param hopeless: if it says True, the dialogue ends there.
    :raises GuestError: when a pattern does not appear in time, or the console closes.
    """
    for step in steps:
        if console.expect(step.expect, step.within, hopeless) is None:
            return
        missing = console.send(step.send)
        if missing:
            note(f"cosim: {_report(step.send, missing)}")


def _report(text: str, missing: str) -> str:
    if missing == "".join(character for character in text if character.isprintable()):
        return (
            f"the guest did not show {text!r} when it was typed; either it does not show what is "
            "typed, or it did not take it"
        )
    return f"the guest did not take {missing!r} of {text!r}, which was typed on its console"
