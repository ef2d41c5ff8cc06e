"""stdout, stderr and log: drained always, kept within bounds, read by whoever asks."""

import os
import socket

from tests.support.session_pair import BrokerStream, SessionPair
from tests.support.waiting import until

from sth_agent.ring_stream import CAPACITY, RingStream
from sth_sandbox.runners import frames


def pipe_stream() -> tuple[RingStream, int]:
    reader, writer = os.pipe()
    return RingStream(reader, framed=False, content_type="application/octet-stream"), writer


def reading(pair: SessionPair, stream: RingStream) -> BrokerStream:
    end, channel = pair.open(kind="instance", stream="stdout")
    stream.serve(channel)
    return end


async def test_stream_reaches_a_reader_and_ends() -> None:
    stream, writer = pipe_stream()
    os.write(writer, b"before ")
    reader = reading(SessionPair(), stream)
    os.write(writer, b"after")
    os.close(writer)
    await until("it has ended", lambda: reader.is_finished)
    assert reader.data == b"before after"
    assert stream.ended.done()


async def test_stream_that_nobody_reads_never_blocks_and_is_bounded() -> None:
    stream, writer = pipe_stream()
    os.set_blocking(writer, False)
    written = 0
    line = b"x" * 4096

    def write() -> bool:
        nonlocal written
        try:
            while written < 5 * CAPACITY:
                written += os.write(writer, line)
        except BlockingIOError:
            return False
        return True

    await until("all was taken", write)
    os.close(writer)
    await stream.ended
    assert stream.ring.end == written
    assert stream.ring.end - stream.ring.start == CAPACITY
    assert stream.ring.dropped == written - CAPACITY


async def test_what_a_reader_consumed_is_forgotten_and_the_rest_is_kept() -> None:
    stream, writer = pipe_stream()
    os.write(writer, b"0123456789")
    pair = SessionPair(consumes=False)
    first = reading(pair, stream)
    await until("it has come", lambda: len(first.data) == 10)
    first.consume(4)
    first.break_off()
    await until("it is known", lambda: stream.ring.start == 4)
    second = reading(SessionPair(), stream)
    await until("the rest has come", lambda: second.data == b"456789")
    assert second.info["offset"] == 4
    os.close(writer)
    await until("it has ended", lambda: second.is_finished)


async def test_two_readers_both_get_everything() -> None:
    stream, writer = pipe_stream()
    readers = [reading(SessionPair(), stream) for _ in range(2)]
    os.write(writer, b"hello")
    os.close(writer)
    await until("both have ended", lambda: all(each.is_finished for each in readers))
    assert [each.data for each in readers] == [b"hello", b"hello"]


async def test_reader_that_is_overtaken_goes_on_at_the_oldest_byte() -> None:
    stream, writer = pipe_stream()
    pair = SessionPair(consumes=False)
    slow = reading(pair, stream)
    os.set_blocking(writer, False)
    data = b"".join(b"%07d\n" % number for number in range(2 * CAPACITY // 8))
    written = 0

    def write() -> bool:
        nonlocal written
        try:
            while written < len(data):
                written += os.write(writer, data[written : written + 65536])
        except BlockingIOError:
            return False
        return True

    await until("all was written", write)
    os.close(writer)
    await stream.ended
    slow.consumes = True
    slow.consume(slow.unconsumed)

    def moved() -> bool:
        pair.report()
        return slow.is_finished

    await until("it has caught up", moved)
    assert slow.data[: 16 * 1024] == data[: 16 * 1024]
    assert slow.data[16 * 1024 :] == data[len(data) - len(slow.data) + 16 * 1024 :]
    assert stream.ring.dropped > 0
    assert stream.ring.start == stream.ring.end


async def test_log_is_lines_out_of_frames() -> None:
    ours, theirs = socket.socketpair()
    stream = RingStream(ours.detach(), framed=True, content_type="application/x-ndjson")
    line = b'{"msg": "hello"}\n'
    theirs.send(frames.pack_frame(frames.DATA, line)[:20])
    theirs.send(frames.pack_frame(frames.DATA, line)[20:])
    reader = reading(SessionPair(), stream)
    stream.add_line(b'{"msg": "ours"}\n')
    await until("both have come", lambda: len(reader.data) == len(line) + 16)
    theirs.send(b"\xff" * 64)
    await until("what is broken ends it", lambda: reader.is_finished)
    theirs.close()
    assert sorted(reader.data.splitlines()) == [b'{"msg": "hello"}', b'{"msg": "ours"}']
