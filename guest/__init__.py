"""What runs inside the guest: sources and recipes.

:func:`load` returns a guest that is ready; :func:`ensure` fetches or builds it first.

A layer above ``cosim.machine`` and ``cosim.capture.marks`` (and the basics ``cosim.errors``,
``cosim.files``, ``cosim.output`` and ``cosim.paths``), and below ``cosim.run``.  Inside it:
``registry`` -> one package for each guest -> ``making`` -> ``spec``.
"""

from guest.registry import NAMES, ensure, load, recipe, status
from guest.spec import GuestSpec

__all__ = ["NAMES", "GuestSpec", "ensure", "load", "recipe", "status"]
