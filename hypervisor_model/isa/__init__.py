"""Constants and formats of the RISC-V privileged architecture (RV64), as the models need them."""
