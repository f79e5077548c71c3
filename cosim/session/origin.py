"""What is known of a session before it starts."""

from __future__ import annotations

from cosim.models.result import Origin
from cosim.run.plan import Plan, about
from cosim.session.protocol import Backend


def backend_of(plan: Plan) -> Backend:
    """Return the plan's backend.

    :raises TypeError: when it can only describe runs and not do them: a fault of the program.
    """
    if not isinstance(plan.backend, Backend):
        raise TypeError(f"{plan.backend!r} opens no sessions")
    return plan.backend


def origin(plan: Plan) -> Origin:
    """Return what is known of the plan's session before it starts.

    :raises UsageError: when the models cannot have the guest's machine; its ``key`` says why.
    """
    backend = backend_of(plan)
    # Of the machine, only the size of RAM has not been checked yet.
    with about("memory"):
        machine = plan.machine_model()
    return Origin(
        guest=plan.describe(),
        backend=backend.name,
        region={"from": plan.begin.text, "to": plan.end.text},
        stream=backend.stream(),
        machine=machine,
        virtual_machines=backend.sees_virtual_machines(),
        nameless=plan.naming.nameless,
    )
