#!/usr/bin/env python3
"""Walk references for each TLB miss by hand: a guest that misses at every read.

    scripts/refs.py [FOLDER [OPERATIONS]]

`cosim reproduce refs` does more of the same.
"""

import sys
from pathlib import Path

from cosim.reproduce import Lab, Measurement, micro

# Small, so that reading 1,024 pages in sequence always misses.
TLB = {"second": None}

folder, operations = [*sys.argv[1:], *("refs", "20000")[len(sys.argv) - 1 :]]

lab = Lab(Path(folder))
for mode in ("sv39", "sv48", "sv57"):
    guest = micro(f"refs-{mode}", {"mode": mode, "pages": 1024, "ops": int(operations), "share": 0})
    machine = {"tlb": TLB, "gstage_mode": mode}
    counts = lab.measure(Measurement(guest, ("nested", "lsp"), machine)).after("measured")
    for model, policy in counts.policies.items():
        refs = policy["walk_refs"]
        per_miss = (refs["vs"] + refs["g"]) / policy["tlb_misses"]
        print(f"{mode:>6} {model:>8} {per_miss:8.3f}")
