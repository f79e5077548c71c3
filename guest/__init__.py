"""What runs inside the guest: sources and recipes.

:func:`load` gives a guest that is ready; :func:`ensure` fetches or builds it first.
"""

from guest.registry import NAMES, ensure, load, recipe, status
from guest.spec import GuestSpec

__all__ = ["NAMES", "GuestSpec", "ensure", "load", "recipe", "status"]
