"""Finding programs: on a PATH of our own, with the real ones and with impostors."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.errors import MissingTool, UsageError
from cosim.machine import tools


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _impostor(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("find", "package"),
    [
        (tools.qemu, "qemu-system-riscv"),
        (tools.gdb, "gdb-multiarch"),
        (tools.cross_compiler, "gcc-riscv64-linux-gnu"),
        (tools.host_compiler, "gcc"),
    ],
)
def test_a_missing_tool_names_its_package(path: Path, find: object, package: str) -> None:
    assert callable(find)
    with pytest.raises(MissingTool, match=package):
        find()


@pytest.mark.parametrize("version", ["7.1.0", "6.2.0 (Debian 1:6.2+dfsg-2)"])
def test_an_old_qemu_is_refused(path: Path, version: str) -> None:
    _impostor(path, tools.QEMU, f"echo QEMU emulator version '{version}'")
    with pytest.raises(MissingTool, match=r"too old: 7\.2 or newer"):
        tools.qemu()


def test_versions_are_read_past_the_brackets(path: Path) -> None:
    _impostor(
        path, tools.QEMU, "echo 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)'"
    )
    assert tools.qemu().version == (7, 2, 22)


def test_a_qemu_that_does_not_run(path: Path) -> None:
    _impostor(path, tools.QEMU, "exit 1")
    with pytest.raises(MissingTool, match="does not run"):
        tools.qemu()


def test_a_gdb_without_riscv_is_told_apart(path: Path) -> None:
    _impostor(
        path,
        "gdb",
        """case "$*" in *riscv*) echo 'Undefined item: "riscv:rv64".' >&2; exit 1;; esac""",
    )
    with pytest.raises(MissingTool, match="does not know RISC-V"):
        tools.gdb()


FEATURES = ("svade", "svpbmt", "svnapot", "svvptc")


def _on(emulator: tools.Tool, cpu: str, names: tuple[str, ...]) -> set[str]:
    found = tools.qemu_cpu_properties(emulator.path, cpu, names)
    return {name for name, value in found.items() if value is True}


def test_properties_are_read_from_the_replies_of_qemu() -> None:
    """In any order, among events and errors; a property that QEMU lacks is left out."""
    replies = """{"QMP": {"version": {}, "capabilities": ["oob"]}}
{"return": {}}
{"return": true, "id": "svpbmt"}
{"return": false, "id": "svnapot"}
{"id": "svvptc", "error": {"class": "GenericError", "desc": "Property not found"}}
{"timestamp": {"seconds": 1}, "event": "SHUTDOWN"}
{"return": true, "id": "svade"}
{"return": 128, "id": "cboz_blocksize"}
{"return": tr"""
    found = tools._properties(replies, (*FEATURES, "cboz_blocksize"))
    assert found == {"svade": True, "svpbmt": True, "svnapot": False, "cboz_blocksize": 128}
    assert tools._properties("", FEATURES) == {}


@pytest.mark.system
@pytest.mark.parametrize(
    ("cpu", "features"),
    [
        ("rv64", ()),
        ("rv64,svpbmt=on", ("svpbmt",)),
        ("rv64,svpbmt=true,svnapot=yes", ("svpbmt", "svnapot")),
        ("max,svpbmt=off", ("svnapot",)),
    ],
)
def test_features_of_a_cpu_are_those_that_qemu_gives_it(
    cpu: str, features: tuple[str, ...]
) -> None:
    asked = ("svpbmt", "svnapot", "no-such-property")
    assert _on(tools.qemu(), cpu, asked) == set(features)


@pytest.mark.system
@pytest.mark.parametrize("cpu", ["nonsense", "rv64,nonsense=on"])
def test_a_cpu_that_qemu_refuses(cpu: str) -> None:
    with pytest.raises(UsageError, match=f"^QEMU refuses -cpu {cpu}: .*nonsense"):
        tools.qemu_cpu_properties(tools.qemu().path, cpu, FEATURES)


@pytest.mark.system
def test_a_profile_brings_its_features() -> None:
    emulator = tools.qemu()
    if emulator.version < (10,):
        with pytest.raises(UsageError, match="refuses"):
            tools.qemu_cpu_properties(emulator.path, "rva23s64", FEATURES)
        return
    profile = {"svade", "svpbmt", "svnapot"}
    assert _on(emulator, "rva23s64", FEATURES) == profile
    assert _on(emulator, "rv64,rva23s64=on", FEATURES) > profile
    assert _on(emulator, "sifive-u54", FEATURES) == set()


@pytest.mark.system
@pytest.mark.parametrize(("option", "size"), [("", 64), (",cboz_blocksize=128", 128)])
def test_the_size_of_a_cache_block(option: str, size: int) -> None:
    emulator = tools.qemu()
    if emulator.version < (10,):
        return
    found = tools.qemu_cpu_properties(emulator.path, f"rv64{option}", ("cboz_blocksize",))
    assert found == {"cboz_blocksize": size}


@pytest.mark.system
def test_the_real_tools() -> None:
    emulator = tools.qemu()
    assert emulator.version >= tools.QEMU_MINIMUM
    assert tools.gdb().version >= (12,)
    assert "gcc" in tools.cross_compiler().text
    assert tools.firmware(emulator) is not None
    assert not tools.qemu_has_cpu_option(emulator.path, "no-such-option=on")
    assert tools.qemu_has_cpu_option(emulator.path, "v=off")
    assert tools.default_cpu(emulator).startswith("rv64")


@pytest.mark.system
def test_the_host_gdb_of_a_distribution_may_lack_riscv() -> None:
    # Whatever `gdb` here is, the one that is chosen knows the architecture.
    assert tools._gdb_has_riscv(str(tools.gdb().path))
