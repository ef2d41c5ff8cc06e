"""The server of the API: breaks off a body that stops being HTTP.

aiohttp 3.14 answers a malformed chunk only after the request that it belongs to, whose handler goes
on waiting for the body: for a stream that is for ever.
"""

from aiohttp import web
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo


class _Connection(RequestHandler):
    """One connection, which tells the handler of a request when its body cannot be read on."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            request = self._current_request
            if request is not None and not request.content.is_eof():
                request.content.set_exception(
                    RequestPayloadError("the body is not what its headers say")
                )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class ApiRunner(web.AppRunner):
    """Runs an application on such connections."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
