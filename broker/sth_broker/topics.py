"""The Topics of every Space: made, listed, deleted, published to and read.

What a Topic is stands in its record; an open one is a TopicLog, loaded when it is first used.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from sth_broker.channel import Channel, Json
from sth_broker.store.interface import Record, Records, Topics
from sth_broker.topic_intake import Intake
from sth_broker.topic_kinds import NDJSON, kind_of, normalised
from sth_broker.topic_log import TopicInfo, TopicLog
from sth_broker.topic_publish import Publication, PublishResult
from sth_broker.topic_readers import PlainStream, Subscription
from sth_protocol.batch import PRODUCER_BYTES
from sth_protocol.errors import BadRequest, Conflict, NotFound, SthError, UnsupportedMediaType
from sth_protocol.ids import check_topic_name

__all__ = ["PlainStream", "PublishResult", "TopicInfo", "TopicService"]

logger = logging.getLogger(__name__)

QUOTA_BYTES = 1024 * 1024 * 1024
# A request whose Topic has no room is answered after so many seconds; a channel waits on.
ROOM_SECONDS = 30.0
# What readers and producers have moved is kept this many seconds later.
KEEP_SECONDS = 1.0
_MAX_EPOCH = 2**32 - 1


class OpenStore(Protocol):
    """What this needs of a store."""

    @property
    def records(self) -> Records: ...

    @property
    def topics(self) -> Topics: ...


class Asker(Protocol):
    """What this needs of a link."""

    @property
    def space(self) -> str: ...


class TopicService:
    """`clock`: seconds since 1970; `quota_bytes`: of a Topic that is made now."""

    def __init__(
        self,
        store: OpenStore,
        *,
        clock: Callable[[], float] = time.time,
        quota_bytes: int = QUOTA_BYTES,
        room_seconds: float = ROOM_SECONDS,
    ) -> None:
        self._records = store.records
        self._topics = store.topics
        self._clock = clock
        self._quota_bytes = quota_bytes
        self._room_seconds = room_seconds
        self._open: dict[tuple[str, str], asyncio.Task[TopicLog]] = {}
        self._touched: set[TopicLog] = set()
        self._keeper: asyncio.Task[None] | None = None

    # -- what there is

    async def create(self, space: str, name: str, content_type: str) -> TopicInfo:
        """A new Topic. Conflict if there is one of that name, BadName, UnsupportedMediaType."""
        info = TopicInfo(
            space,
            check_topic_name(name),
            normalised(content_type),
            int(self._clock() * 1000),
            # A Topic that is made anew gets a log of its own, whatever is left of the old one.
            f"{space}.{name}.{secrets.token_hex(4)}",
            self._quota_bytes,
        )
        try:
            await self._records.put(info.key, _value_of(info), expected=0)
        except Conflict:
            raise Conflict(f"there is a Topic {name} already") from None
        logger.info("Topic %s/%s made, %s", space, name, info.content_type)
        return info

    async def get(self, space: str, name: str) -> TopicInfo:
        """NotFound, BadName."""
        record = await self._records.get(f"topic/{space}/{check_topic_name(name)}")
        if record is None:
            raise NotFound(f"there is no Topic {name}", hint="`sth topic ls` lists them")
        return _info_of(record)

    async def list(self, space: str) -> list[TopicInfo]:
        """Of one Space, by name."""
        return [_info_of(record) for record in await self._records.list(f"topic/{space}/")]

    async def delete(self, space: str, name: str) -> None:
        """Remove a Topic with all that it holds; whoever uses it is told NotFound. NotFound."""
        info = await self.get(space, name)
        if not await self._records.delete(info.key):
            raise NotFound(f"there is no Topic {name}")
        loading = self._open.pop((space, name), None)
        if loading is not None:
            with contextlib.suppress(SthError):
                log = await loading
                await log.remove()
                self._touched.discard(log)
        await self._topics.delete(info.log)
        logger.info("Topic %s/%s removed", space, name)

    # -- over HTTP

    async def publish_stream(
        self, space: str, name: str, content_type: str | None, chunks: AsyncIterator[bytes]
    ) -> PublishResult:
        """Store the stream as records; durable when it returns. If `chunks` raises, what came whole
        is stored and the error raised again. UnsupportedMediaType, TooLarge, TopicFull,
        StorageFailed, BadName."""
        log = await self._opened(space, name, content_type)
        return await Publication(log, chunks, room_timeout=self._room_seconds).run()

    @contextlib.asynccontextmanager
    async def read_stream(
        self, space: str, name: str, content_type: str | None = None
    ) -> AsyncIterator[PlainStream]:
        """A plain reader. Without a content type it takes whatever the Topic has. A Topic that is
        not there is made. UnsupportedMediaType, BadName."""
        log = await self._opened(space, name, content_type)
        stream = PlainStream(log, clock=self._clock)
        try:
            yield stream
        finally:
            stream.close()

    # -- over links

    async def serve_publish(self, link: Asker, channel: Channel) -> None:
        """The handler of channels of kind "publish"."""
        request = channel.info
        producer, epoch = request.get("producer"), request.get("epoch")
        if not isinstance(producer, bytes) or len(producer) != PRODUCER_BYTES:
            raise BadRequest(f"a producer is {PRODUCER_BYTES} bytes")
        if not isinstance(epoch, int) or not 1 <= epoch <= _MAX_EPOCH:
            raise BadRequest("an epoch is a number from 1 on")
        log = await self._opened(link.space, *_asked_for(request))
        await Intake(log, channel, producer=producer, epoch=epoch).serve()

    async def serve_subscribe(self, link: Asker, channel: Channel) -> None:
        """The handler of channels of kind "subscribe"."""
        log = await self._opened(link.space, *_asked_for(channel.info))
        await Subscription(log, channel, clock=self._clock).serve()

    # -- open Topics

    async def _opened(self, space: str, name: str, content_type: str | None) -> TopicLog:
        """The open Topic, made if it is not there."""
        wanted = normalised(content_type) if content_type else None
        key = (space, check_topic_name(name))
        loading = self._open.get(key)
        if loading is None:
            loading = self._open[key] = asyncio.create_task(self._load(*key, wanted or NDJSON))
        try:
            # The task serves all that ask for this Topic: one that is cancelled must not end it.
            log = await asyncio.shield(loading)
        except BaseException:
            if loading.done() and self._open.get(key) is loading:
                del self._open[key]
            raise
        if wanted is not None and kind_of(wanted) != log.info.kind:
            raise UnsupportedMediaType(
                f"the Topic {name} is of {log.info.content_type}, not {wanted}",
                hint=f"use {log.info.content_type}, or another Topic",
            )
        return log

    async def _load(self, space: str, name: str, content_type: str) -> TopicLog:
        log = TopicLog(
            await self._get_or_create(space, name, content_type),
            records=self._records,
            topics=self._topics,
            clock=self._clock,
            touched=self._touch,
        )
        await log.load()
        return log

    async def _get_or_create(self, space: str, name: str, content_type: str) -> TopicInfo:
        try:
            return await self.get(space, name)
        except NotFound:
            pass
        try:
            return await self.create(space, name, content_type)
        except Conflict:
            return await self.get(space, name)

    # -- keeping what moved

    def _touch(self, log: TopicLog) -> None:
        self._touched.add(log)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep_soon(), name="topic keeper")

    async def _keep_soon(self) -> None:
        """Runs while anything moves, and then ends."""
        while self._touched:
            await asyncio.sleep(KEEP_SECONDS)
            await self.keep()

    async def keep(self) -> None:
        """Make durable how far the readers of all Topics are, and what spares reading logs."""
        touched, self._touched = self._touched, set()
        for log in touched:
            try:
                if await log.keep():
                    self._touched.add(log)
            except SthError as error:
                logger.warning(
                    "what moved in Topic %s/%s is not kept: %s",
                    log.info.space,
                    log.info.name,
                    error,
                )
                self._touched.add(log)

    async def remove_orphans(self) -> None:
        """Remove the logs that no Topic names: what a deletion left that was broken off."""
        named = {_info_of(record).log for record in await self._records.list("topic/")}
        for log in await self._topics.names():
            if log not in named:
                logger.info("log %s belongs to no Topic and is removed", log)
                await self._topics.delete(log)

    async def close(self) -> None:
        """Keep what moved. Safe to call twice."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for loading in list(self._open.values()):
            with contextlib.suppress(SthError):
                log = await loading
                await log.keep(snapshot=True)
        self._open.clear()


def _asked_for(request: Json) -> tuple[str, str | None]:
    """Topic and content type of a channel's request."""
    name, content_type = request.get("topic"), request.get("content_type")
    if not isinstance(name, str) or not (content_type is None or isinstance(content_type, str)):
        raise BadRequest("topic and content_type are strings")
    return name, content_type or None


def _value_of(info: TopicInfo) -> Json:
    return {
        "content_type": info.content_type,
        "created_ms": info.created_ms,
        "log": info.log,
        "quota_bytes": info.quota_bytes,
    }


def _info_of(record: Record) -> TopicInfo:
    _, space, name = record.key.split("/", 2)
    value = record.value
    return TopicInfo(
        space, name, value["content_type"], value["created_ms"], value["log"], value["quota_bytes"]
    )
