"""How much of what was typed the guest has shown.

A UART holds 16 bytes or one, and QEMU loses what does not fit while it records a guest.  The only
sign that the guest has taken a character is that it shows the character.
"""

from __future__ import annotations

_HISTORY = 1 << 16
"""How many printed bytes, of those that may show something, are remembered."""
_LINE_ENDS = b"\r\n"


class Echo:
    """Compares what is typed with what the guest prints from then on.

    The guest may print other text in between, and it may show a character late.  What it prints
    cannot show what is typed only later.  So the longest common subsequence of both counts; it is
    computed with one bit for each typed byte (H. Hyyrö, "Bit-parallel LCS-length computation
    revisited", 2004).  For the end of a line, a carriage return and a line feed count alike.
    """

    def __init__(self) -> None:
        self._typed = bytearray()
        self._unshown = 0
        self._where: dict[int, int] = {}
        self._history: list[int] = []

    def type(self, byte: int) -> None:
        """From now on expect the guest to show ``byte`` too."""
        bit = 1 << len(self._typed)
        self._typed.append(byte)
        self._unshown |= bit
        for same in _LINE_ENDS if byte in _LINE_ENDS else (byte,):
            self._where[same] = self._where.get(same, 0) | bit

    def print(self, data: bytes) -> None:
        """Take in what the guest has printed."""
        every = (1 << len(self._typed)) - 1
        for byte in data:
            if places := self._where.get(byte):
                found = self._unshown & places
                self._unshown = ((self._unshown + found) | (self._unshown - found)) & every
                # What is typed later is not shown yet.
                self._history.append(self._unshown | ~every)
                del self._history[: max(0, len(self._history) - _HISTORY)]

    @property
    def shown(self) -> int:
        """How many of the typed bytes were shown."""
        return len(self._typed) - self._unshown.bit_count()

    @property
    def newest_shown(self) -> bool:
        """True if the byte that was typed last was shown, or nothing was typed."""
        return self._unshown >> len(self._typed) - 1 & 1 == 0 if self._typed else True

    @property
    def missing(self) -> str:
        """The typed characters that were not shown, in their order, without ends of lines."""
        shown, place, missing = self._shown_bits(), 0, ""
        for character in self._typed.decode(errors="replace"):
            size = len(character.encode())
            every = (1 << size) - 1
            if character.isprintable() and shown >> place & every != every:
                missing += character
            place += size
        return missing

    def _shown_bits(self) -> int:
        """Return the typed bytes of one longest common subsequence, from its end to its start."""
        row, place, shown = len(self._history) - 1, len(self._typed) - 1, 0
        while row >= 0 and place >= 0:
            bit = 1 << place
            if self._history[row] & bit:
                place -= 1
            elif row > 0 and not self._history[row - 1] & bit:
                row -= 1
            else:
                shown |= bit
                row, place = row - 1, place - 1
        return shown
