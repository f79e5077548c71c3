"""Options that give a guest devices, as the user writes them: ``FILE,KEY=VALUE,..``.

Each function takes the value of an option and the folder at which relative paths start, and raises
ValueError with a text that follows the option's name, as :mod:`cosim.run.checks` does.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from cosim.machine.configuration import parse_memory
from cosim.machine.devices import BUSES, FORMATS, Disk, Share
from cosim.run import checks
from cosim.run.initrd_additions import Added

T = TypeVar("T")

_TAG_BYTES = 31
"""The longest tag that virtio-9p takes."""

_OURS = {
    "-S": "cosim itself decides when the guest starts",
    "-s": "cosim itself talks to QEMU's gdb stub; see --gdb",
    "-gdb": "cosim itself talks to QEMU's gdb stub; see --gdb",
    "-icount": "cosim records the guest with an instruction count that it chooses",
    "-plugin": "cosim loads its own plugin, and another one may change what it sees",
    "-monitor": "cosim itself talks to QEMU's monitor",
    "-mon": "cosim itself talks to QEMU's monitor",
    "-qmp": "cosim itself talks to QEMU's monitor",
    "-qmp-pretty": "cosim itself talks to QEMU's monitor",
    "-smp": "use --smp",
    "-accel": "cosim needs QEMU's translator (tcg) with settings that it chooses",
    "-enable-kvm": "cosim needs QEMU's translator (tcg)",
    "-tb-size": "cosim needs QEMU's translator (tcg) with settings that it chooses",
    "-machine": "use --board for options of the virt board",
    "-M": "use --board for options of the virt board",
    "-cpu": "use --cpu",
    "-m": "use --memory",
    "-kernel": "use --kernel",
    "-initrd": "use --initrd",
    "-append": "use --append",
    "-bios": "use --bios",
    "-dtb": "use --dtb",
    "-pflash": "use --pflash",
    "-net": "use --net user, or -netdev with --live",
    "-nic": "use --net user, or -netdev with --live",
    "-nographic": "cosim itself is at the guest's console",
    "-display": "cosim itself is at the guest's console",
    "-curses": "cosim itself is at the guest's console",
    "-vnc": "cosim itself is at the guest's console",
    "-serial": "cosim itself is at the guest's console",
    "-rtc": "cosim sets the guest's clock, so that runs repeat",
    "-seed": "cosim sets the seed, so that runs repeat",
    "-incoming": "cosim starts the guest itself",
    "-loadvm": "cosim starts the guest itself",
    "-preconfig": "cosim starts the guest itself",
    "-snapshot": "disks are never written anyway; see --disk and --disk-write",
    "-daemonize": "cosim must end QEMU when the run is over",
    "-no-reboot": "cosim gives it already",
    "-no-shutdown": "cosim must hear of the guest's end",
    "-action": "cosim must hear of the guest's end",
    "-nodefaults": "cosim gives it already",
    "-readconfig": "cosim cannot check what is in the file",
    "-set": "it changes other options, such as the overlay that keeps a disk from being written",
    "-runas": "cosim must be able to end QEMU",
    "-run-with": "cosim must be able to end QEMU",
    "-chroot": "cosim must reach QEMU's files",
    "-sandbox": "QEMU must be able to write its recording",
    "-qtest": "QEMU would wait for a test program instead of running the guest",
    "-qtest-log": "QEMU would wait for a test program instead of running the guest",
    "-help": "it runs no guest",
    "-h": "it runs no guest",
    "-version": "it runs no guest",
}
_HELP = ("help", "?")
_UNRECORDED = {
    **dict.fromkeys(
        ("-drive", "-blockdev", "-hda", "-hdb", "-hdc", "-hdd", "-cdrom", "-sd", "-mtdblock"),
        "use --disk",
    ),
    "-netdev": "use --net user",
    **dict.fromkeys(("-fsdev", "-virtfs"), "use --share"),
}
_OURS_ON_BOARD = {
    "memory-backend": "cosim gives the guest memory that it can read itself",
    "accel": "cosim needs QEMU's translator (tcg)",
    "type": "cosim runs guests on the virt board",
    "kernel": "use --kernel",
    "initrd": "use --initrd",
    "append": "use --append",
    "firmware": "use --bios",
    "dtb": "use --dtb",
    "memory": "use --memory",
    "smp": "use --smp",
    "dumpdtb": "it runs no guest",
    "pflash0": "use --pflash",
    "pflash1": "use --pflash",
}


def _parts(value: Any, folder: Path, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Return what stands first and the settings behind it; a doubled comma is one in a name."""
    words = _split(checks.text(value, folder))
    settings: dict[str, str] = {}
    for word in words[1:]:
        key, equals, text = word.partition("=")
        if key not in known or not equals or not text:
            example = ", ".join(f"{one}=.." for one in known)
            raise ValueError(f"has {word!r}; known: {example}")
        if key in settings:
            raise ValueError(f"has {key} twice")
        settings[key] = text.replace(",,", ",")
    return words[0].replace(",,", ","), settings


def _split(text: str) -> list[str]:
    """Return the parts between single commas."""
    return re.split(r"(?<!,),(?!,)", text)


def _choice(settings: Mapping[str, str], key: str, known: tuple[T, ...]) -> T | None:
    if key not in settings:
        return None
    for one in known:
        if one == settings[key]:
            return one
    raise ValueError(f"has {key}={settings[key]}; known: {', '.join(map(str, known))}")


def disk(value: Any, folder: Path) -> Disk:
    """Return the disk ``FILE[,format=raw|qcow2][,bus=pci|mmio|mmio-legacy]``.

    :raises ValueError: when it is malformed, or there is no such file.
    """
    if isinstance(value, Disk):
        return value
    name, settings = _parts(value, folder, ("format", "bus"))
    return Disk(
        path=checks.file(name, folder),
        format=_choice(settings, "format", FORMATS),
        bus=_choice(settings, "bus", BUSES),
    )


def size(value: Any, folder: Path) -> int:
    """Return the bytes of a size such as ``64M``.

    :raises UsageError: when it is none.
    :raises ValueError: when it is no number above 0.
    """
    if isinstance(value, int):
        if isinstance(value, bool) or value <= 0:
            raise ValueError(f"is {value!r}, not a number of bytes above 0")
        return value
    return parse_memory(checks.text(value, folder))


def share(value: Any, folder: Path) -> Share:
    """Return the folder ``DIR[,tag=NAME][,write=on|off]``; its tag is its name.

    :raises ValueError: when it is malformed, or there is no such folder.
    """
    name, settings = _parts(value, folder, ("tag", "write"))
    path = folder / name
    if not checks.exists(path, Path.is_dir):
        raise ValueError(f"names {path}, which is not a folder")
    tag = settings.get("tag", path.resolve().name)
    if not re.fullmatch(r"[\w.+-]+", tag) or len(tag.encode()) > _TAG_BYTES:
        raise ValueError(
            f"has the tag {tag!r}; a tag has at most {_TAG_BYTES} letters, digits and . + - _: "
            "choose one with tag=NAME"
        )
    return Share(path.resolve(), tag, _choice(settings, "write", ("on", "off")) == "on")


def addition(value: Any, folder: Path) -> Added:
    """Return the file or folder ``FILE[,to=PATH]`` that an initramfs gets; its path is its name.

    :raises ValueError: when it is malformed, or there is no such file or folder.
    """
    name, settings = _parts(value, folder, ("to",))
    source = folder / name
    if not checks.exists(source, Path.is_file) and not source.is_dir():
        raise ValueError(f"names {source}, which is neither a file nor a folder")
    to = settings.get("to", source.resolve().name).strip("/")
    if not to or ".." in to.split("/"):
        raise ValueError(f"has to={settings.get('to', '')!r}, which is no path in the guest")
    return Added(source, to)


def device_tree(value: Any, folder: Path) -> Path:
    """Return the path of a compiled device tree.

    :raises ValueError: when there is no such file, or it is something else.
    """
    path = checks.file(value, folder)
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise ValueError(f"names {path}, which cannot be read: {error.strerror}") from None
    if head != b"\xd0\x0d\xfe\xed":
        raise ValueError(f"names {path}, which is not a compiled device tree (dtc -O dtb)")
    return path


def flash(value: Any, folder: Path) -> tuple[Path, ...]:
    """Return the files of ``CODE[,VARIABLES]`` for the board's two flash chips.

    As for disks, a doubled comma is one in a name.

    :raises ValueError: when there are more, or one is not a file.
    """
    words = _split(checks.text(value, folder))
    if len(words) > 2:
        raise ValueError(f"names {len(words)} files; the board has two flash chips")
    return tuple(checks.file(word.replace(",,", ","), folder) for word in words)


def network(value: Any, folder: Path) -> str:
    """Return ``user``, the one kind of network.

    :raises ValueError: when it is something else.
    """
    if value not in ("user", "none"):
        raise ValueError(f"is {value!r}; it can be user or none")
    return str(value)


def board(value: Any, folder: Path) -> str:
    """Return options of QEMU's ``virt`` board, ``KEY=VALUE,..``.

    :raises ValueError: when one is malformed, or would take something from the session.
    """
    text = checks.text(value, folder).strip()
    for word in text.removeprefix("virt,").split(","):
        key, equals, setting = word.partition("=")
        if not equals or not key or not setting:
            raise ValueError(f"has {word!r}; write options of the board such as aia=aplic-imsic")
        reason = _OURS_ON_BOARD.get(key)
        group = key.partition(".")[0]
        if group in ("memory", "smp"):
            reason = _OURS_ON_BOARD[group]
        if reason is not None:
            raise ValueError(f"cannot have {key}: {reason}")
    return text.removeprefix("virt,")


def qemu_arguments(value: Any, folder: Path) -> tuple[str, ...]:
    """Return further words for QEMU's command line.

    :raises ValueError: when they cannot be split, or one would break the session.
    """
    try:
        words = tuple(shlex.split(checks.text(value, folder)))
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error})") from None
    if not words[0].startswith("-"):
        raise ValueError(f"begins with {words[0]!r}; QEMU's options begin with -")
    for word in words:
        # QEMU takes two hyphens as well as one.
        option = word.removeprefix("-") if word.startswith("--") else word
        reason = _OURS.get(option)
        if reason is not None:
            raise ValueError(f"cannot have {word}: {reason}")
        if word in _HELP or word.endswith(tuple(f",{help_word}" for help_word in _HELP)):
            raise ValueError(
                f"has {word!r}, with which QEMU prints its help and runs no guest; "
                "ask QEMU itself (qemu-system-riscv64 -machine virt ...)"
            )
    return words


def unrecorded(words: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the first of QEMU's options that a recording cannot repeat, and what to use instead.

    ``-drive`` with ``blkreplay`` and ``-netdev`` with ``filter-replay`` can be repeated.
    """
    text = " ".join(words)
    for word in words:
        option = word.removeprefix("-") if word.startswith("--") else word
        instead = _UNRECORDED.get(option)
        if instead is None:
            continue
        if option in ("-drive", "-blockdev") and "blkreplay" in text:
            continue
        if option == "-netdev" and "filter-replay" in text:
            continue
        return word, instead
    return None
