#!/usr/bin/env python3
"""Figure 7 by hand: TLB misses over nested paging's, exits over TSP's, for programs under Linux.

    scripts/fig7.py [FOLDER [PROGRAM...]]

`cosim reproduce fig7` does more of the same.  Programs are those of guest.workloads: cc1 is the
real compiler; mcf-like, milc-like and astar-like are stand-ins for the SPEC programs.
"""

import sys
from pathlib import Path

from cosim.reproduce import Lab, Measurement, label, program

lab = Lab(Path(sys.argv[1] if len(sys.argv) > 1 else "fig7"))
print(f"{'':>32}{'TLB misses/nested':>20}{'exits/TSP':>12}")
for name in sys.argv[2:] or ["cc1", "mcf-like", "milc-like", "astar-like"]:
    # 2 MiB pages in the G-stage do not break up the guest's superpages in the TLB.
    machine = {"setup": "h", "gstage_page": 2 << 20}
    run = lab.measure(Measurement(program(name, "test"), ("nested", "shadow", "lsp"), machine))
    counts = run.after("begin")
    misses = {model: policy["tlb_misses"] for model, policy in counts.policies.items()}
    exits = {model: policy["exits"]["total"] for model, policy in counts.policies.items()}
    more, fewer = misses["lsp"] / misses["nested"], exits["lsp"] / exits["shadow"]
    print(f"{label(name):>32}{more:>20.3f}{fewer:>12.3f}")
