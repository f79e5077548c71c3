"""Run by test_one_field.py in a copy of the tree whose events have the field ``toy`` besides.

one_field.py OLD_TRACE NEW_TRACE
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from trace_tables import DOCUMENT, updated

from cosim.capture.log import EventLog
from cosim.capture.plugin import build, event_header
from cosim.capture.plugin.stream import StreamReader
from cosim.machine import tools
from cosim.trace import describe, query, schema
from cosim.trace.reader import TraceReader
from hypervisor_model.events import EVENT, Kind, empty
from tests.cosim.capture.plugin.test_stream import END, EVENTS, block, end
from tests.cosim.streams import write_trace


def main(old: Path, new: Path) -> None:
    assert EVENT.itemsize == 56 and EVENT.fields is not None and EVENT.fields["toy"][1] == 48
    batch = empty(3)
    batch["kind"] = Kind.MARK
    batch["toy"] = [7, 1 << 31, 0]

    # The C header, and the whole plugin with it.
    program = new.with_suffix(".c")
    program.with_name(event_header.NAME).write_text(event_header.header())
    program.write_text(
        '#include "event.h"\n'
        '_Static_assert(offsetof(struct event, toy) == 48, "");\n'
        '_Static_assert(sizeof(((struct event *)0)->toy) == 4, "");\n'
        '_Static_assert(sizeof(struct event) == 56, "");\n'
    )
    compiler = tools.host_compiler().path
    subprocess.run([compiler, "-fsyntax-only", program], check=True, timeout=60)
    build.build()

    # The decoder of the plugin's stream, and the log of the other source.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(block(EVENTS, 0, batch.tobytes()) + block(END, 1, end(3)))
        [decoded] = StreamReader(ours).batches()
    assert decoded.tobytes() == batch.tobytes()
    log = EventLog()
    log.add(Kind.MARK, 1)
    assert log.take()["toy"].tolist() == [0]

    # Traces: of today's version and of the one before the field.
    assert schema.VERSION == 5
    write_trace(new, batch)
    trace = TraceReader(new)
    assert trace.version == 5
    [read] = trace.batches()
    assert read.tobytes() == batch.tobytes()
    column = pq.read_schema(new / "events-000000.parquet").field("toy")
    assert str(column.type) == "uint32"
    before = TraceReader(old)
    assert before.version == 4
    assert [part["toy"].tolist() for part in before.batches()] == [[0, 0]]

    # What users see.
    assert query.run(trace, "SELECT toy FROM marks ORDER BY event").rows == [[7], [1 << 31], [0]]
    assert query.run(before, "SELECT count(*), count(toy) FROM events").rows == [[2, 0]]
    assert describe.details(batch[0], {}).endswith("toy 7")
    assert "| `toy` | UINT_32 | beads | a toy (since version 5) |" in updated(DOCUMENT.read_text())
    assert "| | `toy` | `toy` | the beads of the toy |" in updated(DOCUMENT.read_text())
    print("whole")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
