"""Scenario 2: the acknowledgement is lost, the broker restarts, the client sends again: one entry
at the same offset. A retry ten minutes later: still one."""

from pathlib import Path

import pytest
from tests.support.batches import PRODUCER, lines
from tests.support.channel_pair import ChannelPair
from tests.support.topics import NDJSON, SPACE, Broker, Clock, publish, read

from sth_protocol import codec

REQUEST = {
    "kind": "publish",
    "topic": "t",
    "content_type": NDJSON,
    "producer": PRODUCER,
    "epoch": 1,
}
BATCH = lines("a", "b")


async def send_once(broker: Broker, *, lose_answer: bool = False) -> object:
    """Publish BATCH over a new link, which ends after it: [last sequence, offset]; None if the
    answer never reached the client."""
    pair = ChannelPair(SPACE)
    stream, channel = await pair.open(REQUEST)
    await stream.send(BATCH)
    await stream.finish()
    await broker.topics.serve_publish(pair, channel)
    await stream.until(lambda end: end.finished)
    (answer,) = stream.messages
    return None if lose_answer else codec.unpack(answer)


@pytest.mark.parametrize("killed", [False, True])
async def test_scenario_02_retry_after_restart_is_stored_once(tmp_path: Path, killed: bool) -> None:
    clock = Clock()
    broker = Broker(tmp_path, clock)
    await publish(broker.topics, "t", b"before\n")
    assert await send_once(broker, lose_answer=True) is None
    await broker.restart(killed=killed)

    assert await send_once(broker) == [1, 2]
    await publish(broker.topics, "t", b"after\n")
    clock.now += 600
    assert await send_once(broker) == [1, 2]
    await broker.restart(killed=killed)
    clock.now += 600
    assert await send_once(broker) == [1, 2]

    whole = b"before\na\nb\nafter\n"
    assert await read(broker.topics, "t", len(whole)) == whole
    await broker.close()


async def test_scenario_02_checker_sees_a_batch_stored_twice(tmp_path: Path) -> None:
    """The same retry without its numbering is stored again: the check above can fail."""
    broker = Broker(tmp_path, Clock())
    for _ in range(2):
        await publish(broker.topics, "t", b"a\nb\n")
    assert await read(broker.topics, "t", 8) == b"a\nb\na\nb\n"
    await broker.close()
