"""What a request becomes before QEMU starts: the guest's command line, and what it cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cosim.errors import UsageError
from cosim.run import plan
from cosim.run.names import IN_FILE
from cosim.run.run_spec import RunSpec
from cosim.session.backends.gdb import Gdb
from tests.cosim.kernel.test_images import elf, image

OWN = "console=ttyS0 panic=-1"


def spec(workload: str | None = None, append: str | None = None) -> RunSpec:
    return RunSpec(name="test", backend=Gdb(), guest="linux", workload=workload, append=append)


def test_a_workload_is_quoted_for_linux_and_alone_for_a_bare_guest() -> None:
    assert plan._command_line(spec("echo a; ls", "quiet"), OWN) == (
        f'{OWN} cosim.run="echo a; ls" quiet'
    )
    assert plan._command_line(spec("scenario=map"), "scenario=all") == "scenario=map"
    assert plan._command_line(spec(), OWN) == OWN


def test_a_workload_with_a_quote_is_refused() -> None:
    with pytest.raises(UsageError, match='--workload cannot contain a "') as refused:
        plan._command_line(spec('echo "hello  world"'), OWN)
    assert "\n" not in str(refused.value)
    plan._command_line(spec("echo 'hello  world'"), OWN)


def test_a_command_line_that_the_kernel_would_cut_is_refused() -> None:
    plan._check_fits("a" * 1023, spec("a"))
    with pytest.raises(UsageError, match=r"--workload makes .* 1024 bytes long; .* at most 1023"):
        plan._check_fits("a" * 1024, spec("a"))
    with pytest.raises(UsageError, match=r"--append makes .* 1026 bytes"):
        plan._check_fits("\u00e9" * 513, spec(append="a"))


def test_messages_name_the_key_of_a_run_file() -> None:
    with pytest.raises(UsageError, match=r"^append makes the guest's command line 1024 bytes"):
        plan._check_fits("a" * 1024, replace(spec(append="a"), names=IN_FILE))


def test_a_flat_kernel_is_behind_the_whole_firmware(tmp_path: Path) -> None:
    kernel, firmware = tmp_path / "Image", tmp_path / "fw.bin"
    kernel.write_bytes(image())
    firmware.write_bytes(b"\x13\0\0\0" * (5 << 18))  # 5 MiB
    for bios, base in ((None, 0x8020_0000), ("none", 0x8000_0000), (firmware, 0x8060_0000)):
        code = plan._code(kernel, None if bios is None else str(bios), spec(), "kernel")
        assert code.image.entry == base
        assert (code.loaded, code.bios) == (kernel, None if bios is None else str(bios))


def test_firmware_may_be_all_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))
    firmware = tmp_path / "fw.elf"
    firmware.write_bytes(elf())
    code = plan._code(None, str(firmware), spec(), "kernel")
    assert (code.given, code.loaded, code.bios) == (firmware, None, str(firmware))
    assert code.image.ranges[0].start == 0x8000_0000
    firmware.write_bytes(elf(segments=[(1, 5, 0, 0, b"code", 4)], entry=0, kind=3))
    code = plan._code(None, str(firmware), spec(), "kernel")
    assert code.given == firmware and code.bios is not None
    assert Path(code.bios).read_bytes() == b"code"
    assert len(code.symbols) == 0
