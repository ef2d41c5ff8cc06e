from itertools import product
from typing import Any

import pytest

from sth_protocol import codec
from sth_protocol.channel import STAGES, STEPS, TRANSITIONS, Channel, Stage, Step
from sth_protocol.errors import ChannelViolation, Internal
from sth_protocol.window import MIN_WINDOW, Pool

# The table once more, as a picture: rows are stages, columns the steps in the order of STEPS.
PICTURE = {
    #            accept  data    credit      finish      done
    "waiting": ("open", None, "waiting", None, None),
    "open": (None, "open", "open", "finished", None),
    "finished": (None, None, "finished", None, "done"),
    "done": (None, None, None, None, None),
}


def opened_here() -> Channel:
    return Channel(1, opened_here=True, pool=Pool())


def opened_there() -> Channel:
    return Channel(1, opened_here=False, pool=Pool())


def sent(channel: Channel) -> list[list[Any]]:
    """The frames that the channel gives now."""
    found = []
    while channel.ready:
        found.append(codec.unpack(channel.next_frame()))
    return found


@pytest.mark.parametrize(("stage", "step"), list(product(STAGES, STEPS)))
def test_channel_follows_the_picture_for_every_pair(stage: Stage, step: Step) -> None:
    expected = PICTURE[stage][STEPS.index(step)]
    assert TRANSITIONS.get((stage, step)) == expected
    channel = opened_here()
    if expected is None:
        with pytest.raises(ChannelViolation, match=stage):
            channel.check_peer(stage, step)
        with pytest.raises(Internal, match=stage):
            channel.check_own(stage, step)
    else:
        assert channel.check_peer(stage, step) == channel.check_own(stage, step) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_channel_takes_data_only_in_an_open_direction(stage: Stage) -> None:
    receiver, sender = opened_there(), opened_here()
    receiver.receiving = sender.sending = stage
    if stage == "open":
        receiver.receive(0, b"data", more=False)
        sender.enqueue(b"data", more=False)
        assert (receiver.window.received, sender.queued) == (4, 4)
    else:
        with pytest.raises(ChannelViolation):
            receiver.receive(0, b"data", more=False)
        with pytest.raises(Internal):
            sender.enqueue(b"data", more=False)


def test_channel_is_open_from_its_opener_and_waits_the_other_way() -> None:
    assert (opened_here().sending, opened_here().receiving) == ("open", "waiting")
    assert (opened_there().sending, opened_there().receiving) == ("waiting", "open")


def test_channel_cuts_data_at_64_kib_and_by_credit() -> None:
    channel = opened_here()
    channel.credit.raise_limit(150_000)
    data = bytes(range(256)) * 600
    channel.enqueue(data, more=False)
    frames = sent(channel)
    assert [(kind, arg, len(payload)) for kind, _, arg, payload in frames] == [
        (6, 0, 65536),
        (6, 65536, 65536),
        (6, 131072, 150_000 - 131072),
    ]
    assert channel.queued == len(data) - 150_000
    channel.credit.note_consumed(150_000)
    channel.credit.raise_limit(200_000)
    frames += sent(channel)
    assert frames[-1][:3] == [5, 1, 150_000]
    assert b"".join(frame[3] for frame in frames) == data
    assert channel.queued == 0 and not channel.ready


def test_channel_keeps_the_ends_of_messages() -> None:
    channel = opened_here()
    channel.enqueue(b"one ", more=True)
    channel.enqueue(b"message", more=False)
    channel.enqueue(b"another", more=False)
    assert sent(channel) == [
        [6, 1, 0, b"one "],
        [5, 1, 4, b"message"],
        [5, 1, 11, b"another"],
    ]


def test_channel_sends_no_empty_frame_but_to_end_a_message() -> None:
    channel = opened_here()
    channel.enqueue(b"", more=False)
    channel.enqueue(b"", more=True)
    assert not channel.ready
    channel.enqueue(b"begun", more=True)
    channel.enqueue(b"", more=True)
    channel.enqueue(b"", more=False)
    channel.enqueue(b"", more=False)
    assert sent(channel) == [[6, 1, 0, b"begun"], [5, 1, 5, b""]]


def test_channel_ends_a_message_without_credit() -> None:
    channel = opened_here()
    channel.enqueue(bytes(MIN_WINDOW), more=True)
    channel.enqueue(b"", more=False)
    assert sent(channel)[-1] == [5, 1, MIN_WINDOW, b""]


@pytest.mark.parametrize(("before", "more"), [(False, False), (False, True), (True, True)])
def test_channel_refuses_an_empty_frame_of_the_peer(before: bool, more: bool) -> None:
    channel = opened_there()
    if before:
        channel.receive(0, b"begun", more=True)
    with pytest.raises(ChannelViolation, match="without a byte"):
        channel.receive(channel.window.received, b"", more=more)


def test_channel_takes_an_empty_frame_that_ends_a_message() -> None:
    channel = opened_there()
    channel.receive(0, b"begun", more=True)
    channel.receive(5, b"", more=False)
    with pytest.raises(ChannelViolation):
        channel.receive(5, b"", more=False)


def test_channel_sends_fin_after_what_waits() -> None:
    channel = opened_here()
    channel.enqueue(bytes(MIN_WINDOW + 1), more=False)
    channel.finish()
    assert [frame[0] for frame in sent(channel)] == [6]
    assert (channel.sending, channel.ready) == ("open", False)
    channel.credit.raise_limit(2 * MIN_WINDOW)
    assert sent(channel)[1:] == [[7, 1, MIN_WINDOW + 1, None]]
    assert (channel.sending, channel.ready) == ("finished", False)
    with pytest.raises(Internal, match="finished"):
        channel.enqueue(b"late", more=False)


def test_channel_that_closes_drops_what_waits() -> None:
    channel = opened_here()
    channel.enqueue(bytes(2 * MIN_WINDOW), more=False)
    channel.finish()
    channel.next_frame()
    channel.close()
    assert not channel.ready and channel.queued == 0
