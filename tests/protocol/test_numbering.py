import pytest

from sth_protocol.errors import ProtocolError, SessionLost
from sth_protocol.numbering import ACK_BYTES, ACK_FRAMES, Receipts, SendLog


def log_of(count: int) -> SendLog:
    log = SendLog()
    for number in range(1, count + 1):
        log.append(b"frame %d" % number)
    return log


def again(log: SendLog) -> list[bytes]:
    found = []
    while log.rewound:
        found.append(log.next_again())
    return found


def test_send_log_sends_again_what_the_peer_lacks_in_order() -> None:
    log = log_of(5)
    log.rewind(3)
    assert again(log) == [b"frame 4", b"frame 5"]
    assert (log.forgotten, log.numbered) == (3, 5)


def test_send_log_sends_again_as_often_as_links_break() -> None:
    log = log_of(3)
    log.rewind(0)
    assert log.next_again() == b"frame 1"
    log.rewind(0)
    assert len(again(log)) == 3
    log.append(b"frame 4")
    log.rewind(2)
    assert again(log) == [b"frame 3", b"frame 4"]


def test_send_log_forgets_what_is_acknowledged_and_what_it_cost() -> None:
    log = log_of(3)
    cost = log.cost
    assert cost > 3 * len(b"frame 1")
    log.acknowledge(2)
    assert (log.forgotten, log.numbered) == (2, 3)
    assert 0 < log.cost < cost
    log.acknowledge(2)
    log.acknowledge(3)
    assert log.cost == 0


@pytest.mark.parametrize("count", [1, 4, 2**62])
def test_send_log_refuses_to_forget_what_was_not_sent_or_is_forgotten(count: int) -> None:
    log = log_of(3)
    log.acknowledge(2)
    with pytest.raises(ProtocolError):
        log.acknowledge(count)


def test_send_log_refuses_an_ack_of_what_this_link_has_not_sent_yet() -> None:
    log = log_of(3)
    log.rewind(1)
    with pytest.raises(ProtocolError):
        log.acknowledge(2)
    log.next_again()
    log.acknowledge(2)
    assert again(log) == [b"frame 3"]


@pytest.mark.parametrize("received", [0, 1, 4])
def test_send_log_knows_when_a_session_cannot_go_on(received: int) -> None:
    log = log_of(3)
    log.acknowledge(2)
    with pytest.raises(SessionLost):
        log.rewind(received)


def receive(receipts: Receipts, *, frames: int, size: int) -> None:
    receipts.received += frames
    receipts.note_bytes(size)


def test_receipts_are_due_after_32_frames() -> None:
    receipts = Receipts()
    receive(receipts, frames=ACK_FRAMES - 1, size=1)
    assert not receipts.due
    receive(receipts, frames=1, size=1)
    assert receipts.due
    assert receipts.acknowledge() == ACK_FRAMES
    assert not receipts.due and not receipts.outstanding


def test_receipts_are_due_after_many_bytes() -> None:
    receipts = Receipts()
    receive(receipts, frames=1, size=ACK_BYTES - 1)
    assert not receipts.due
    receive(receipts, frames=0, size=1)
    assert receipts.due


def test_receipts_of_nothing_are_never_due() -> None:
    receipts = Receipts()
    receive(receipts, frames=0, size=10 * ACK_BYTES)
    receipts.flush()
    assert not receipts.due


def test_receipts_are_due_at_a_flush() -> None:
    receipts = Receipts()
    receive(receipts, frames=1, size=1)
    receipts.flush()
    assert receipts.due
