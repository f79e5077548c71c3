#!/usr/bin/env python3
"""Figure 5 by hand: exits of the micro-benchmark over the share of modifications.

    scripts/fig5.py [FOLDER [PAGES OPERATIONS]]

`cosim reproduce fig5` does more of the same.  A Lab captures a guest once and runs models over
what it captured; both are kept in FOLDER (here: fig5).
"""

import sys
from pathlib import Path

from cosim.reproduce import Lab, Measurement, micro

folder, pages, operations = [*sys.argv[1:], *("fig5", "1024", "100000")[len(sys.argv) - 1 :]]

lab = Lab(Path(folder))
N = int(operations)
print(f"{'share':>6}{'TSP':>10}{'2pN':>10}{'LSP':>10}{'N(p+p(1-p))':>14}")
for percent in range(0, 101, 10):
    guest = micro(f"micro-{percent}", {"pages": int(pages), "ops": N, "share": percent})
    run = lab.measure(Measurement(guest, ("shadow", "lsp"), {"setup": "base"}))
    counts = run.after("measured")  # the mark that the guest sets after its warm-up
    p = percent / 100
    print(
        f"{percent:>5}%{counts.exits('shadow'):>10,}{2 * p * N:>10,.0f}"
        f"{counts.exits('lsp'):>10,}{N * (p + p * (1 - p)):>14,.0f}"
    )
