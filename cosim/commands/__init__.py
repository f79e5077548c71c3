"""The sub-commands of ``cosim``: each module parses, calls and prints, nothing else."""
