"""Exception codes that an address translation can raise (privileged specification, ``mcause``)."""

from __future__ import annotations

from hypervisor_model.events import Access
from hypervisor_model.jit import kernel

FETCH_ACCESS_FAULT = 1
LOAD_ACCESS_FAULT = 5
STORE_ACCESS_FAULT = 7
FETCH_PAGE_FAULT = 12
LOAD_PAGE_FAULT = 13
STORE_PAGE_FAULT = 15
FETCH_GUEST_PAGE_FAULT = 20
LOAD_GUEST_PAGE_FAULT = 21
STORE_GUEST_PAGE_FAULT = 23

NAMES: dict[int, str] = {
    FETCH_ACCESS_FAULT: "instruction access fault",
    LOAD_ACCESS_FAULT: "load access fault",
    STORE_ACCESS_FAULT: "store/AMO access fault",
    FETCH_PAGE_FAULT: "instruction page fault",
    LOAD_PAGE_FAULT: "load page fault",
    STORE_PAGE_FAULT: "store/AMO page fault",
    FETCH_GUEST_PAGE_FAULT: "instruction guest-page fault",
    LOAD_GUEST_PAGE_FAULT: "load guest-page fault",
    STORE_GUEST_PAGE_FAULT: "store/AMO guest-page fault",
}
"""The specification's name of each."""

GUEST_PAGE_FAULTS = (FETCH_GUEST_PAGE_FAULT, LOAD_GUEST_PAGE_FAULT, STORE_GUEST_PAGE_FAULT)
"""Those that the G-stage raises; only they write ``htval``."""

_READ = int(Access.READ)
_WRITE = int(Access.WRITE)


@kernel
def access_fault(access: int) -> int:
    """Return the access-fault code of an :class:`~hypervisor_model.events.Access`."""
    if access == _READ:
        return LOAD_ACCESS_FAULT
    if access == _WRITE:
        return STORE_ACCESS_FAULT
    return FETCH_ACCESS_FAULT


@kernel
def page_fault(access: int) -> int:
    """Return the page-fault code of an :class:`~hypervisor_model.events.Access`."""
    if access == _READ:
        return LOAD_PAGE_FAULT
    if access == _WRITE:
        return STORE_PAGE_FAULT
    return FETCH_PAGE_FAULT


@kernel
def guest_page_fault(access: int) -> int:
    """Return the guest-page-fault code of an :class:`~hypervisor_model.events.Access`."""
    return page_fault(access) + (FETCH_GUEST_PAGE_FAULT - FETCH_PAGE_FAULT)
