"""Compiles the plugin's C code without QEMU (``harness.c``)."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import cosim.capture.plugin
from cosim.capture.plugin import event_header
from cosim.machine import tools

SOURCE = Path(cosim.capture.plugin.__file__).parent


def compiled(folder: Path) -> ctypes.CDLL:
    """Return the harness, compiled into ``folder``."""
    output = folder / "harness.so"
    (folder / event_header.NAME).write_text(event_header.header())
    sources = [Path(__file__).with_name("harness.c")]
    sources += [SOURCE / f"{name}.c" for name in ("tables", "processes", "guest")]
    words = [str(tools.host_compiler().path), "-std=gnu11", "-O1", "-Wall", "-Werror", "-shared"]
    words += ["-fPIC", "-fvisibility=hidden", f"-I{SOURCE}", f"-I{folder}"]
    subprocess.run([*words, *map(str, sources), "-o", str(output)], check=True, timeout=60)
    return ctypes.CDLL(str(output))
