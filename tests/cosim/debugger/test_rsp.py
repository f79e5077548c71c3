"""Framing of the remote protocol, and the client against a stub played by hand."""

from __future__ import annotations

import logging
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.debugger.registers import parse_general, parse_value, read_description
from cosim.debugger.rsp import INTERRUPT, Decoder, Stub, frame, parse_stop, readable
from cosim.errors import RemoteError


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 7))
def test_packets_survive_any_split(payloads: list[bytes], piece: int) -> None:
    stream = b"+".join(frame(payload) for payload in payloads)
    decoder = Decoder()
    got = []
    for start in range(0, len(stream), piece):
        got += decoder.feed(stream[start : start + piece])
    assert got == payloads
    assert decoder.damaged == 0


def test_a_damaged_packet_is_counted_and_dropped() -> None:
    decoder = Decoder()
    assert decoder.feed(b"$OK#00" + frame(b"T05")) == [b"T05"]
    assert decoder.damaged == 1


def test_interrupts_and_run_lengths() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x03$0* #7a") == [INTERRUPT, b"0000"]


def test_stop_replies() -> None:
    stop = parse_stop(b"T05thread:01;watch:ffffffff80001000;")
    assert stop is not None
    assert (stop.signal, stop.watch, stop.ended) == (5, 0xFFFF_FFFF_8000_1000, False)
    end = parse_stop(b"W00")
    assert end is not None
    assert end.ended
    assert parse_stop(b"OK") is None


def _answering(script: dict[bytes, list[bytes]]) -> Stub:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        decoder = Decoder()
        with theirs:
            while data := theirs.recv(4096):
                for payload in decoder.feed(data):
                    for answer in script[payload]:
                        theirs.sendall(frame(answer))

    threading.Thread(target=serve, daemon=True).start()
    return Stub(ours)


def test_answers_come_in_the_order_of_the_requests() -> None:
    stub = _answering({b"p1": [b"11"], b"p2": [b"22"], b"qRcmd,68": [b"O6869", b"OK"]})
    assert stub.ask(b"p1", b"p2", b"p1") == [b"11", b"22", b"11"]
    stub.post(stub.monitor("h"), b"p2")
    assert stub.monitor_answer() == "hi"
    assert stub.answer() == b"22"


def test_deferred_requests_go_along_and_must_be_granted() -> None:
    stub = _answering({b"Z0,1,4": [b"OK"], b"g": [b"aa"], b"Z9,9,9": [b"E22"]})
    stub.defer(b"Z0,1,4")
    assert stub.request(b"g") == b"aa"
    stub.defer(*[b"Z0,1,4"] * 3000)
    assert stub.request(b"g") == b"aa"
    stub.defer(b"Z9,9,9")
    with pytest.raises(RemoteError, match="refused a request: E22"):
        stub.request(b"g")


def test_some_requests_wait_until_the_guest_has_stopped() -> None:
    stop = b"T05thread:01;"
    stub = _answering({b"Z9,9,9": [b"E22"], b"g": [b"aa"], b"vCont;c": [stop], b"\x03": [stop]})
    stub.defer_to_stop(b"Z9,9,9")
    assert stub.request(b"g") == b"aa"
    stub.resume(b"vCont;c")
    assert stub.has_sent(20)
    stub.interrupt()
    for _ in range(2):
        assert stub.stop(20) is not None
    with pytest.raises(RemoteError, match="refused a request: E22"):
        stub.request(b"g")


def test_an_answer_to_a_deferred_request_is_no_stop() -> None:
    stub = _answering({b"Z0,1,4": [b"OK"], b"vCont;c": [], b"\x03": [b"T02thread:01;"]})
    stub.defer(b"Z0,1,4")
    stub.resume(b"vCont;c")
    for _ in range(3):
        assert not stub.has_sent(0.02)
    stub.interrupt()
    while not stub.has_sent(20):
        pass
    stop = stub.stop(20)
    assert stop is not None and stop.signal == 2


def test_a_guest_may_end_while_its_stop_is_looked_for() -> None:
    ours, theirs = socket.socketpair()
    stub = Stub(ours)
    stub.resume(b"vCont;c")
    assert not stub.has_sent(0.01)
    theirs.close()
    assert stub.has_sent(20)
    stop = stub.stop(20)
    assert stop is not None and stop.ended


def test_a_silent_stub_and_a_closed_line_are_errors() -> None:
    ours, theirs = socket.socketpair()
    stub = Stub(ours)
    stub.deadline = 0.05
    with pytest.raises(RemoteError, match="did not answer within"):
        stub.request(b"g")
    assert stub.stop(0.01) is None
    theirs.close()
    with pytest.raises(RemoteError, match="closed the debug line"):
        stub.request(b"g")


def test_target_description_numbers_registers_in_order() -> None:
    xml = (
        b'<target><xi:include href="a.xml"/><feature name="b">'
        b'<reg name="satp" bitsize="64" regnum="450"/><reg name="next" bitsize="32"/>'
        b"</feature></target>"
    )
    inner = (
        b'<feature name="a"><reg name="x0" bitsize="64"/><reg name="ra" bitsize="64"/></feature>'
    )
    stub = _answering(
        {
            b"qXfer:features:read:target.xml:0,7c0": [b"m" + xml[:50]],
            b"qXfer:features:read:target.xml:32,7c0": [b"l" + xml[50:]],
            b"qXfer:features:read:a.xml:0,7c0": [b"l" + inner],
        }
    )
    registers = read_description(stub)
    assert registers.number == {"x0": 0, "ra": 1, "satp": 450, "next": 451}
    assert registers.read("satp") == b"p1c2"
    assert registers.write("next", 0x1234) == b"P1c3=34120000"
    with pytest.raises(RemoteError, match="no register 'vl'"):
        registers.read("vl")


def test_registers_are_little_endian() -> None:
    answer = b"".join((i << 8 | 1).to_bytes(8, "little").hex().encode() for i in range(33))
    assert parse_general(answer)[32] == 32 << 8 | 1
    assert parse_value(b"0100000000000080") == 1 << 63 | 1
    with pytest.raises(RemoteError):
        parse_value(b"E14")


def test_packets_are_logged_in_both_directions(caplog: pytest.LogCaptureFixture) -> None:
    script = {b"Z0,1,4": [b"OK"], b"qRcmd,68": [b"O68690a", b"OK"], b"g": [bytes(range(200)) * 2]}
    with caplog.at_level(logging.DEBUG, "cosim.rsp"):
        stub = _answering(script)
        stub.defer(b"Z0,1,4")
        stub.post(stub.monitor("h"))
        assert stub.monitor_answer() == "hi\n"
        stub.request(b"g")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == ["-> Z0,1,4", "-> qRcmd,'h'"]
    assert sorted(lines[2:5]) == ["<- O'hi\\n'", "<- OK", "<- OK"]
    assert lines[5] == "-> g"
    assert lines[6].startswith("<- \\x00\\x01") and lines[6].endswith("... (400 bytes)")
    assert len(lines) == 7 and len(lines[6]) < 200
    assert all(record.name == "cosim.rsp" for record in caplog.records)


def test_without_a_log_no_packet_is_made_readable(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosim.debugger.rsp.readable", lambda payload: pytest.fail("called"))
    with caplog.at_level(logging.INFO, "cosim.rsp"):
        assert _answering({b"g": [b"aa"]}).request(b"g") == b"aa"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (INTERRUPT, "interrupt"),
        (b"OK", "OK"),
        (b"Oxyz", "Oxyz"),
        (b"T05thread:01;", "T05thread:01;"),
        (b"X80:\x00\xfe'", "X80:\\x00\\xfe'"),
    ],
)
def test_packets_are_readable(payload: bytes, text: str) -> None:
    assert readable(payload) == text
