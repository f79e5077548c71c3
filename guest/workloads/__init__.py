"""The ``workloads`` guest: the paper's programs or their stand-ins, and programs people run.

:data:`WORKLOADS` says what there is; :func:`select` makes the guest run one of them.
"""

from guest.workloads.catalog import SIZES, WORKLOADS, Size, Workload
from guest.workloads.recipe import Recipe, select

__all__ = ["SIZES", "WORKLOADS", "Recipe", "Size", "Workload", "select"]
