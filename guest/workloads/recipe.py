"""Makes the ``workloads`` guest: the linux guest with our programs and Debian's in its initramfs.

The image is not compressed.  Compressed it would be 38 MB instead of 98, but unpacking it in the
guest would take 1.6 billion instructions, more than the whole boot.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cosim.capture import marks
from cosim.errors import UsageError
from cosim.files import write_atomically
from cosim.output import Step
from guest import compiler, cpio, linux, making, spec
from guest.spec import GuestSpec
from guest.workloads import packages
from guest.workloads.catalog import INPUT, SIZES, WORKLOADS, Size, Workload, inputs

NAME = "workloads"

DEFAULT_RUN = "sqlite3:test"
"""What the guest runs if its command line is not changed."""

_SOURCE = Path(__file__).resolve().parent
_PROGRAMS = {
    "usr/bin/mcf-like": "mcf_like.c",
    "usr/bin/milc-like": "milc_like.c",
    "usr/bin/astar-like": "astar_like.c",
    "usr/bin/mprotect-bench": "mprotect_bench.c",
    "usr/bin/fork-bench": "fork_bench.c",
}
_SCRIPT = "python_script.py"
MARK_FLAGS = (
    f"-DMARK_ADDRESS={marks.USER_MARK:#x} -Wl,--section-start=.cosim_mark={marks.USER_MARK:#x}"
)
"""The compiler's flags for a program that includes ``mark.h``."""


class Recipe:
    """How the guest is made; see :class:`guest.making.Recipe`."""

    name = NAME
    verb = "build"
    summary = "the linux guest with the paper's workloads: real programs and our stand-ins"

    def sources(self) -> str:
        """Return a text that changes with our sources, the recipe, and the linux guest."""
        ours = [path for path in sorted(_SOURCE.iterdir()) if path.suffix in (".c", ".h", ".py")]
        base = spec.read(linux.NAME)
        kernel = base.checksums["kernel"] if base else "no kernel"
        files = [*ours, Path(cpio.__file__), Path(compiler.__file__), Path(marks.__file__)]
        return "+".join((spec.digest(files), linux.Recipe().sources(), kernel))

    def make(self, step: Step, force: bool) -> GuestSpec:
        """Make the linux guest if it is missing, fetch the programs, compile ours, pack.

        :raises EnvironmentFault: when a package or the compiler is missing.
        """
        base = making.ensure(linux.Recipe(), step)
        folder = spec.folder(NAME)
        debian = folder / "debian"
        versions = None if force else packages.fetched(debian)
        versions = versions or packages.fetch(debian, step)
        step(0, None, "initramfs")
        initrd = folder / "initramfs.cpio"
        entries = [*linux.entries(), *_entries(debian)]
        write_atomically(initrd, cpio.archive(entries))
        made = GuestSpec(
            name=NAME,
            kernel=base.kernel,
            initrd=initrd,
            append=f"{linux.APPEND} cosim.run={DEFAULT_RUN}",
            memory="1G",
            region_from="mark:begin",
            region_to="mark:end",
            sources=self.sources(),
            versions={**base.versions, **versions},
            checksums={
                "kernel": base.checksums["kernel"],
                "initrd": spec.checksum(initrd),
            },
        )
        spec.write(made)
        return made


def select(made: GuestSpec, run: str) -> GuestSpec:
    """Return the guest ``made``, but running the shell command ``run``.

    :param run: for example ``WORKLOADS["xz"].run("test")``, or several joined by ``&&``.
    :raises UsageError: when ``run`` has a double quote, which the kernel's command line cannot
        carry.
    """
    if '"' in run:
        raise UsageError(f"a command for the guest cannot have a double quote: {run}")
    # If there are two such options, /init takes the last.
    return replace(made, append=f'{made.append} cosim.run="{run}"')


def _entries(debian: Path) -> list[cpio.Entry]:
    """Return what the image has in addition to the linux guest's files."""
    files = {
        str(path.relative_to(debian)): path.read_bytes()
        for path in sorted(debian.glob("*/**/*"))
        if path.is_file()
    }
    files |= {path: _compiled(_SOURCE / source) for path, source in _PROGRAMS.items()}
    files |= {f"{INPUT}/{name}": data for name, data in inputs().items()}
    files[f"{INPUT}/{_SCRIPT}"] = (_SOURCE / _SCRIPT).read_bytes()
    for workload in WORKLOADS.values():
        for size in SIZES:
            files[f"bin/{workload.run(size)}"] = script(workload, size).encode()
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    return [
        *(cpio.directory(path) for path in sorted(folders - {".", "bin"})),
        *(cpio.regular(path, data, 0o755) for path, data in sorted(files.items())),
        # One program, which takes its role from its name.
        cpio.symlink("usr/bin/redis-server", "redis-check-rdb"),
    ]


def _compiled(source: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="lsp-cosim-") as scratch:
        output = Path(scratch) / source.stem
        compiler.build_hosted(output, [source], MARK_FLAGS)
        return output.read_bytes()


def script(workload: Workload, size: Size) -> str:
    """Return the shell script that runs ``workload`` in the guest.

    The script takes the program's arguments; without any it uses those of ``size``.  It prints
    ``workload NAME ok CHECKSUM``, or what went wrong and then ``workload NAME failed``.
    """
    begin, end = ("", "") if workload.own_marks else ("cosim-mark begin", "cosim-mark end")
    return f"""#!/bin/sh
# {workload.name}, size {size}: {workload.what}
export PATH=/usr/bin:/bin HOME=/tmp TMPDIR=/tmp
[ $# -gt 0 ] || set -- {workload.arguments[size]}
mkdir -p /tmp/{workload.name} && cd /tmp/{workload.name} || exit 1
{workload.prepare}
{begin}
{{ {workload.command}
}} > output 2> errors
status=$?
{end}
checksum=$({workload.check}
)
if [ $status = 0 ] && [ -n "$checksum" ]; then
    echo "workload {workload.name} ok $checksum"
else
    cat output errors
    echo "workload {workload.name} failed, exit status $status"
    exit 1
fi
"""
