"""QEMU's target description: which register has which number, how wide it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from xml.etree import ElementTree

from cosim.debugger.rsp import Stub
from cosim.errors import RemoteError

_GENERAL = struct.Struct("<33Q")


@dataclass(frozen=True)
class Registers:
    """Register numbers by name, as ``p`` and ``P`` packets take them."""

    number: dict[str, int]
    bytes_of: dict[str, int]

    def read(self, name: str) -> bytes:
        """The packet that reads register ``name``.

        :raise RemoteError: when the target has no such register.
        """
        if name not in self.number:
            raise RemoteError(f"this QEMU shows no register {name!r} to gdb")
        return b"p%x" % self.number[name]

    def write(self, name: str, value: int) -> bytes:
        """The packet that writes ``value`` to register ``name``."""
        self.read(name)
        width = self.bytes_of[name]
        return b"P%x=%s" % (self.number[name], value.to_bytes(width, "little").hex().encode())


def value(answer: bytes) -> int:
    """The unsigned number in the answer to a ``p`` packet.

    :raise RemoteError: when the stub answered with an error.
    """
    try:
        return int.from_bytes(bytes.fromhex(answer.decode()), "little")
    except ValueError:
        raise RemoteError(f"QEMU's stub cannot read a register ({answer[:20]!r})") from None


def general(answer: bytes) -> list[int]:
    """x0..x31 and pc (index 32) out of the answer to a ``g`` packet."""
    data = bytes.fromhex(answer[: 2 * _GENERAL.size].decode())
    if len(data) < _GENERAL.size:
        raise RemoteError("QEMU's stub sent too few registers")
    return list(_GENERAL.unpack(data))


def describe(stub: Stub) -> Registers:
    """Read the target description (QEMU 7.2 needs that before it answers ``p``)."""
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
    return Registers(number, width)


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
