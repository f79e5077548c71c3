"""A gdb that also steps and looks into the guest, as a user's own gdb does."""

from __future__ import annotations

from cosim.debugger.mi import GdbMi, guest_stopped
from cosim.debugger.mi_records import GdbStop, quote


class InspectingGdb(GdbMi):
    """gdb with the commands that cosim itself does not need."""

    @guest_stopped
    def step_instruction(self, timeout: float = 30) -> GdbStop:
        """Execute one instruction and return the stop behind it.

        :raises GdbError: when the stop does not come within ``timeout`` seconds.
        """
        self._start("-exec-step-instruction")
        return self._stop_of("-exec-step-instruction", timeout)

    @guest_stopped
    def read_memory(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at the virtual ``address``, through the guest's current tables.

        :raises GdbError: when not all of them can be read.
        """
        fields = self.command(f"-data-read-memory-bytes 0x{address:x} {size:d}")
        blocks = fields.get("memory", [])
        data = b"".join(bytes.fromhex(block["contents"]) for block in blocks)
        if len(data) != size:
            raise self._error(f"only {len(data)} of {size} bytes at 0x{address:016x} are readable")
        return data

    @guest_stopped
    def evaluate(self, expression: str) -> str:
        """Return the value of ``expression`` as gdb prints it.

        :raises GdbError: when gdb cannot evaluate it.
        """
        return str(self.command(f"-data-evaluate-expression {quote(expression)}")["value"])
