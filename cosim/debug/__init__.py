"""``cosim debug``: gdb in the user's terminal, with commands that understand page tables.

=================  ===============================================================================
module             what it is
=================  ===============================================================================
``gdb_part``       the part inside gdb: it passes words on, and shows answers; standard library only
``link``           the line between that part and us
``commands``       what each ``paging`` command answers
``gdb_line``       stands between gdb and QEMU's stub: running, stopping, going back
``rerun``          the re-execution of a recording, which can be sent to any instruction
``timeline``       the recorded events, and at which instruction of QEMU's count each one is
``symbol_file``    a small ELF file for kernels whose symbols gdb cannot read
``console_view``   where the user sees the guest's console
``session``        puts these together
=================  ===============================================================================

gdb embeds the system's Python, which lacks our packages.  So the part inside gdb only asks
questions, and this process answers them.
"""
