"""The ``workloads`` guest: the paper's programs or their stand-ins, and other real programs.

:data:`WORKLOADS` has all of them; :func:`select` makes the guest run one.
"""

from guest.workloads.catalog import SIZES, WORKLOADS, Size, Workload
from guest.workloads.recipe import Recipe, select

__all__ = ["SIZES", "WORKLOADS", "Recipe", "Size", "Workload", "select"]
