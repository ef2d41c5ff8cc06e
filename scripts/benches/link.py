"""link: 64 KiB messages from agent to broker, against the same without a multiplexer."""

from collections.abc import Iterator

from scripts.benches.measure import Figure, alternate
from scripts.benches.raw import raw_link


def link() -> Iterator[Figure]:
    with raw_link("mux") as ours, raw_link("websocket") as bare, raw_link("tls") as tls:
        for each in (ours, bare, tls):
            each.measure(64)
        rate, websocket, raw = alternate(5, ours.measure, bare.measure, tls.measure)
    yield Figure(
        "link",
        f"{rate / 1e6:.0f} MB/s",
        f"websockets -> aiohttp {websocket / 1e6:.0f} MB/s",
        f"{rate / websocket:.2f}",
        "at least 0.8",
        rate / websocket >= 0.8,
    )
    yield Figure(
        "link to raw TLS",
        f"{rate / 1e6:.0f} MB/s",
        f"raw TLS {raw / 1e6:.0f} MB/s",
        f"{rate / raw:.2f}",
        "shown",
    )
