"""A lean HTTP/1.1 load: blocking sockets and large buffers, so that little of the time is ours."""

import http.client
import socket
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

BUFFER = 256 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """One Instance behind one broker."""

    url: str
    token: str
    instance: str

    def head(self, method: str, stream: str, *headers: str) -> bytes:
        """A request's head."""
        place = urlsplit(self.url)
        lines = [
            f"{method} {place.path.rstrip('/')}/instance/{self.instance}/{stream} HTTP/1.1",
            f"Host: {place.netloc}",
            f"Authorization: Bearer {self.token}",
            *headers,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def connect(self) -> socket.socket:
        place = urlsplit(self.url)
        connection = socket.create_connection((place.hostname or "", place.port or 80))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def open_output(self) -> http.client.HTTPResponse:
        """The answer of GET output, its head read. Closing it closes its connection."""
        connection = self.connect()
        connection.sendall(self.head("GET", "output", "Connection: close"))
        response = http.client.HTTPResponse(connection, method="GET")
        connection.close()
        response.begin()
        if response.status != http.client.OK:
            raise RuntimeError(f"GET output: {response.status} {response.read()[:200]!r}")
        return response

    def send_input(self, block: bytes, times: int, content_type: str) -> None:
        """POST input: `block` as often as said, as one body; ends the Instance's input."""
        with self.connect() as connection:
            connection.sendall(
                self.head(
                    "POST",
                    "input",
                    f"Content-Type: {content_type}",
                    f"Content-Length: {len(block) * times}",
                )
            )
            for _ in range(times):
                connection.sendall(block)
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            if response.status >= http.client.BAD_REQUEST:
                raise RuntimeError(f"POST input: {response.status} {response.read()[:200]!r}")
            response.read()


def stream_through(target: Target, block: bytes, times: int, content_type: str) -> float:
    """Seconds from the first byte sent to the last one received; all bytes must come back."""
    response = target.open_output()
    sender = threading.Thread(target=target.send_input, args=(block, times, content_type))
    started = time.perf_counter()
    sender.start()
    buffer = memoryview(bytearray(BUFFER))
    received = 0
    while count := response.readinto(buffer):
        received += count
    elapsed = time.perf_counter() - started
    sender.join()
    response.close()
    if received != len(block) * times:
        raise RuntimeError(f"{received} bytes came back of {len(block) * times}")
    return elapsed


def ping_pong(target: Target, payload: bytes, rounds: int, content_type: str) -> list[float]:
    """Seconds of each round trip of `payload` on two open streams."""
    response = target.open_output()
    connection = target.connect()
    connection.sendall(
        target.head("POST", "input", f"Content-Type: {content_type}", "Transfer-Encoding: chunked")
    )
    chunk = b"%x\r\n%b\r\n" % (len(payload), payload)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        connection.sendall(chunk)
        left = len(payload)
        while left:
            left -= len(response.read1(left)) or _ended()
        times.append(time.perf_counter() - started)
    connection.sendall(b"0\r\n\r\n")
    while response.read1(BUFFER):
        pass
    response.close()
    connection.close()
    return times


def _ended() -> int:
    raise RuntimeError("the output ended early")
