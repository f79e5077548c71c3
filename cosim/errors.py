"""All errors that a user may see.

The root and its branches are in :mod:`hypervisor_model.errors`; this module adds the errors of the
outside world.  ``exit N`` is the exit status of the command.

::

    CosimError
    +-- UsageError (exit 2)
    |   +-- ModelError           a model or its options are not valid
    |   +-- GuestImageError      a kernel, initrd or firmware file is missing or of the wrong kind
    |   +-- TraceError           a trace cannot be read
    |   +-- DumpError            a dump of memory cannot be read
    |   +-- RunFileError         a run file is malformed; the message names line and key
    +-- EnvironmentFault (exit 3)
        +-- MissingTool          QEMU, gdb, a compiler ... is missing or too old
        +-- MachineError         QEMU refused to start or died
        +-- GdbError             gdb died, timed out or answered with an error
        +-- RemoteError          the remote protocol to QEMU's stub broke
        +-- GuestError           the guest panicked, ended or hung before it did what was asked
        +-- ClusterError         a scheduler or its workers cannot be reached, or are not fit
        +-- StorageError         a disk is full, or a folder or object storage cannot be used
        |   +-- StorageSilent    object storage does not answer; it may do so later
        +-- UnreadableMemory     guest memory that a question needs is not there
"""

from __future__ import annotations

import errno

from hypervisor_model.errors import CosimError, EnvironmentFault, ModelError, UsageError

__all__ = [
    "ClusterError",
    "CosimError",
    "DumpError",
    "EnvironmentFault",
    "GdbError",
    "GuestError",
    "GuestImageError",
    "MachineError",
    "MissingTool",
    "ModelError",
    "RemoteError",
    "RunFileError",
    "StorageError",
    "StorageSilent",
    "TraceError",
    "UnreadableMemory",
    "UsageError",
    "outside_fault",
]


class GuestImageError(UsageError):
    """A kernel, initrd or firmware file is missing, unreadable or of the wrong kind."""


class TraceError(UsageError):
    """A trace is missing, damaged, of an unknown version, or not a trace."""


class DumpError(UsageError):
    """A dump of memory is missing, damaged, or of a format that is not known."""


class RunFileError(UsageError):
    """A run file is malformed; the message names line and key."""


class MissingTool(EnvironmentFault):
    """A program that the task needs is missing or too old; the message says how to get it."""


class MachineError(EnvironmentFault):
    """QEMU refused to start, or died."""


class GdbError(EnvironmentFault):
    """gdb died, timed out or answered with an error."""


class RemoteError(EnvironmentFault):
    """The remote protocol between gdb and QEMU's stub broke."""


class GuestError(EnvironmentFault):
    """The guest panicked, ended or hung before it did what was asked."""


class ClusterError(EnvironmentFault):
    """A scheduler or its workers cannot be reached, are gone, or cannot do the sweep."""


class StorageError(EnvironmentFault):
    """A disk is full, a folder cannot be written, or object storage does not do what is asked."""


class StorageSilent(StorageError):
    """Object storage cannot be reached, or says that it cannot serve now: it may do so later."""


class UnreadableMemory(EnvironmentFault):
    """Guest memory that a question needs is not there, or its source does not answer."""


def outside_fault(error: OSError | MemoryError) -> EnvironmentFault:
    """Return what to tell of an error that the system raised where nobody expected it."""
    short = isinstance(error, MemoryError) or error.errno == errno.ENOMEM
    advice = "free some memory" if short else "free space, or check the permissions"
    if getattr(error, "errno", None) == errno.EIO:
        advice = "a terminal has gone, or a disk is damaged"
    return EnvironmentFault(f"{str(error) or 'out of memory'}; {advice}")
