"""The one error tree of both packages.

::

    CosimError                 anything the tool can explain in one line
    +-- UsageError             the caller asked for something malformed (exit status 2)
    |   +-- ModelError         a model was configured or fed against its contract
    +-- EnvironmentFault       something outside is missing or died (exit status 3)

``cosim.errors`` adds the leaves that need the outside world.  A message is one line: what is
wrong, then what to do about it.
"""

from __future__ import annotations


class CosimError(Exception):
    """Base of every error that the tool reports in one line.

    ``exit_status`` is what the command line exits with; ``log`` names a file with more.
    """

    exit_status = 3

    def __init__(self, message: str, *, log: str | None = None) -> None:
        super().__init__(message)
        self.log = log


class UsageError(CosimError):
    """The request is malformed; nothing was started."""

    exit_status = 2
    key: str | None = None
    """What of a run is wrong, as a run file spells it, if that is known."""


class ModelError(UsageError):
    """A model was configured or fed against its documented contract."""


class EnvironmentFault(CosimError):
    """A part outside of the tool is missing, too old, or died."""

    exit_status = 3
