"""Registers over the remote protocol: QEMU's numbers for them, and how their values are sent.

QEMU lists its registers in a target description (XML).  :func:`read_description` reads it;
:func:`parse_value` and :func:`parse_general` read the answers.
"""

from __future__ import annotations

import struct
from binascii import unhexlify
from dataclasses import dataclass
from xml.etree import ElementTree

from cosim.debugger.rsp import Stub
from cosim.errors import RemoteError

_GENERAL = struct.Struct("<33Q")


@dataclass(frozen=True)
class RegisterNumbers:
    """The number and width of each register, for ``p`` and ``P`` packets."""

    number: dict[str, int]
    bytes_of: dict[str, int]

    def read(self, name: str) -> bytes:
        """Return the packet that reads register ``name``.

        :raises RemoteError: when the target has no such register.
        """
        if name not in self.number:
            raise RemoteError(f"this QEMU shows no register {name!r} to gdb")
        return b"p%x" % self.number[name]

    def write(self, name: str, value: int) -> bytes:
        """Return the packet that writes ``value`` to register ``name``.

        :raises RemoteError: when the target has no such register.
        """
        self.read(name)
        width = self.bytes_of[name]
        return b"P%x=%s" % (self.number[name], value.to_bytes(width, "little").hex().encode())


def parse_value(answer: bytes) -> int:
    """Return the unsigned number in the answer to a ``p`` packet.

    :raises RemoteError: when the stub answered with an error.
    """
    try:
        return int.from_bytes(unhexlify(answer), "little")
    except ValueError:
        raise RemoteError(f"QEMU's stub cannot read a register ({answer[:20]!r})") from None


def parse_general(answer: bytes) -> list[int]:
    """Return x0..x31 and pc (index 32) from the answer to a ``g`` packet.

    :raises RemoteError: when the answer holds fewer registers.
    """
    data = unhexlify(answer[: 2 * _GENERAL.size])
    if len(data) < _GENERAL.size:
        raise RemoteError("QEMU's stub sent too few registers")
    return list(_GENERAL.unpack(data))


def read_description(stub: Stub) -> RegisterNumbers:
    """Read the target description.  QEMU 7.2 answers ``p`` only after that.

    :raises RemoteError: when the stub sends no description.
    """
    number: dict[str, int] = {}
    width: dict[str, int] = {}
    following = 0
    for feature in _features(stub, "target.xml"):
        for reg in feature.iter("reg"):
            following = int(reg.get("regnum", following))
            name = reg.attrib["name"]
            number[name] = following
            width[name] = int(reg.get("bitsize", 64)) // 8
            following += 1
    return RegisterNumbers(number, width)


def _features(stub: Stub, annex: str) -> list[ElementTree.Element]:
    # QEMU leaves the prefix of <xi:include> undeclared.
    root = ElementTree.fromstring(_document(stub, annex).replace(b"xi:include", b"include"))
    if root.tag == "feature":
        return [root]
    found = []
    for child in root:
        if child.tag == "include":
            found += _features(stub, child.attrib["href"])
        elif child.tag == "feature":
            found.append(child)
    return found


def _document(stub: Stub, annex: str) -> bytes:
    text = b""
    while True:
        answer = stub.request(b"qXfer:features:read:%s:%x,7c0" % (annex.encode(), len(text)))
        if answer[:1] not in (b"m", b"l"):
            raise RemoteError("QEMU's stub sent no target description")
        text += answer[1:]
        if answer[:1] == b"l":
            return text
