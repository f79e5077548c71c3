"""Sizes of the plugin's access filter, which the command line needs before anything runs."""

FILTER_SLOTS = 64
"""Default slots of the access filter, for data and for instructions each (ours)."""
FILTER_LARGEST = 512
"""Most slots."""
