"""The experiments of the LSP paper, on real guests (``cosim reproduce``).

A :class:`~cosim.reproduce.lab.Lab` captures guests and runs models over what it captured, each
thing once.  The modules ``fig5``, ``fig6``, ``refs``, ``fig7`` and ``beyond`` say what is to be
measured (``plan``) and make a figure of it (``figure``).  The paper's numbers are used in neither;
they stand only in the texts and claims, beside ours.

The scripts ``scripts/fig5.py`` and its like show how to use this from Python.
"""

from __future__ import annotations

from cosim.report.programs import label
from cosim.reproduce.lab import Lab
from cosim.reproduce.measurement import Measurement, micro, program
from cosim.reproduce.timeline import Counts, Timeline

__all__ = ["Counts", "Lab", "Measurement", "Timeline", "label", "micro", "program"]
