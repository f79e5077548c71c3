#include "scenarios.h"

const struct scenario scenarios[] = {
    {"map", 1, 0, run_map},
    {"protect", 1, 0, run_protect},
    {"bulk", 1, 0, run_bulk},
    {"alias", 1, 0, run_alias},
    {"superpage", 1, 0, run_superpage},
    {"unlink", 1, 0, run_unlink},
    {"asid", 1, 0, run_asid},
    {"global", 1, 0, run_global},
    {"bare", 1, 0, run_bare},
    {"stores", 1, 0, run_stores},
    {"cbo-zero", 1, 0, run_cbo_zero},
    {"misaligned", 1, 0, run_misaligned},
    {"svinval", 1, 0, run_svinval},
    {"fault", 1, 0, run_fault},
    {"user", 1, 0, run_user},
    {"forgotten", 1, 0, run_forgotten},
    {"lsp-bench", 0, prepare_bench, run_bench},
    {0},
};
