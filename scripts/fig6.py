#!/usr/bin/env python3
"""Figure 6 by hand: exits of the global page table as fences are batched over windows.

    scripts/fig6.py [FOLDER [PAGES OPERATIONS]]

`cosim reproduce fig6` does more of the same.  The options of the guest are in guest/micro/bench.c:
`window` modifications are followed by a fence for each address, or by one of everything.
"""

import sys
from pathlib import Path

from cosim.reproduce import Lab, Measurement, micro

folder, pages, operations = [*sys.argv[1:], *("fig6", "1024", "100000")[len(sys.argv) - 1 :]]

lab = Lab(Path(folder))
print(f"{'fence':>6}{'window':>8}{'TSP':>10}{'LSP':>10}{'entries LSP read':>20}")
for fence in ("va", "all"):
    for window in (1, 2, 4, 8, 16):
        options = {"pages": int(pages), "ops": int(operations), "share": 10, "global": 1}
        guest = micro(f"window-{window}-{fence}", {**options, "window": window, "fence": fence})
        run = lab.measure(Measurement(guest, ("shadow", "lsp"), {"setup": "base"}))
        counts = run.after("measured")
        print(
            f"{fence:>6}{window:>8}{counts.exits('shadow'):>10,}{counts.exits('lsp'):>10,}"
            f"{counts.policies['lsp']['sync_reads']:>20,}"
        )
