"""Points that are wanted, and the packets that insert and remove them."""

from __future__ import annotations

from cosim.capture.gdb.stop_points import StopPoints


def test_points_are_made_good_with_the_next_request() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.sent: list[bytes] = []

        def defer(self, *payloads: bytes) -> None:
            self.sent += payloads

    stub = Recorder()
    points = StopPoints(stub)
    points.breaks.add({0x1000})
    points.watches.become({0x2000, 0xFFFF_0000_0000_3000})
    points.sync()
    assert sorted(stub.sent) == [b"Z0,1000,4", b"Z2,2000,1000", b"Z2,ffff000000003000,1000"]
    stub.sent.clear()
    points.sync()
    assert stub.sent == []
    points.watches.remove({0x2000})
    points.watches.remove({0xFFFF_0000_0000_3000})
    points.watches.add({0xFFFF_0000_0000_3000})
    points.sync()
    assert stub.sent == [b"z2,2000,1000"]
