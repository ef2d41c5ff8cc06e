"""JSON answers, in the form that the original gives them: without a charset."""

import json

from aiohttp import web


def answer(value: object, *, status: int = 200) -> web.Response:
    """`value` as JSON."""
    return web.Response(
        body=json.dumps(value).encode(), status=status, content_type="application/json"
    )
