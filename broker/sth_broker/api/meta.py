"""What the broker says of itself."""

import asyncio
import os
import shutil

from aiohttp import web

from sth_broker.api.answers import answer
from sth_broker.api.route import BASE, Route, principal, services
from sth_broker.version import version
from sth_protocol.model import Json


async def get_version(_request: web.Request) -> web.Response:
    return answer(
        {
            "service": "@scramjet/host",
            "apiVersion": "v1",
            "version": version(),
            "build": "sth-edge",
        }
    )


async def get_status(request: web.Request) -> web.Response:
    # The original tells here whether it is connected to its platform, which we are ourselves.
    service, space = services(request), principal(request).space
    online = sum(each.online for each in service.hub_views.states(space))
    return answer({"cpm": {}, "hubsOnline": online})


async def get_load_check(request: web.Request) -> web.Response:
    data = str(services(request).config.data)
    return answer(await asyncio.to_thread(_load, data))


async def get_health(_request: web.Request) -> web.Response:
    return answer({"healthy": True})


async def get_ready(_request: web.Request) -> web.Response:
    # The ports open last: who can ask is answered by a broker that is ready.
    return answer({"ready": True})


def _load(data: str) -> Json:
    processors = os.cpu_count() or 1
    one_minute, five_minutes, _ = os.getloadavg()
    disk = shutil.disk_usage(data)
    total, available = _memory()
    return {
        "avgLoad": round(100 * five_minutes / processors, 2),
        "currentLoad": round(100 * one_minute / processors, 2),
        "memFree": available,
        "memUsed": total - available,
        "fsSize": [
            {
                "fs": data,
                "size": disk.total,
                "used": disk.used,
                "available": disk.free,
                "use": round(disk.used / disk.total, 4) if disk.total else 0,
            }
        ],
    }


def _memory() -> tuple[int, int]:
    """Bytes in all, and those that programs could still take."""
    values = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * 1024
    total = values.get("MemTotal", 0)
    return total, values.get("MemAvailable", values.get("MemFree", 0))


ROUTES = (
    Route("GET", f"{BASE}/version", get_version, None),
    Route("GET", f"{BASE}/status", get_status, "read"),
    Route("GET", f"{BASE}/load-check", get_load_check, "read"),
    Route("GET", "/healthz", get_health, None),
    Route("GET", "/readyz", get_ready, None),
)
