"""Where a broker's API is and how to reach it: the one place that reads a URL."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sth_protocol.errors import BadRequest, Misconfigured

if TYPE_CHECKING:
    import ssl

API_PREFIX = "/api/v1"
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`prefix`: path before the routes; `ca_file`: the only CA to trust, empty for the system's.
    `connect_timeout` in seconds. The token stays out of the representation."""

    scheme: str
    host: str
    port: int
    prefix: str = API_PREFIX
    token: str = field(default="", repr=False)
    ca_file: str = ""
    connect_timeout: float = 10.0

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """host:port as it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def base(self) -> str:
        """The URL without the API's prefix, for messages."""
        return f"{self.scheme}://{self.authority}"

    def url(self, path: str) -> str:
        """The whole URL of a route, `path` beginning with a slash."""
        return f"{self.base}{self.prefix}{path}"

    def tls_context(self) -> "ssl.SSLContext | None":
        """What checks the peer; None for plain HTTP. Misconfigured if the CA file is no use."""
        if not self.secure:
            return None
        # Imported here: commands that ask no broker do without it.
        import ssl

        try:
            return ssl.create_default_context(cafile=self.ca_file or None)
        except OSError as error:  # also ssl.SSLError: the file is there and no certificate in it
            raise Misconfigured(
                f"the CA file {self.ca_file} cannot be used: {error.strerror or error}",
                hint="give a PEM file with the certificate of the CA",
            ) from error


def parse_endpoint(
    url: str, *, token: str = "", ca_file: str = "", connect_timeout: float = 10.0
) -> Endpoint:
    """The endpoint of a URL with or without the API's path; BadRequest if it is no such URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url(url, str(error)) from None
    if parts.scheme not in DEFAULT_PORTS:
        raise _bad_url(url, "it does not begin with http:// or https://")
    if not parts.hostname:
        raise _bad_url(url, "it names no host")
    if parts.username or parts.password:
        raise _bad_url(url.rsplit("@", 1)[-1], "it carries a user name or password")
    if parts.query or parts.fragment:
        raise _bad_url(url, "it has a query or a fragment")
    if any(character in token for character in "\r\n \t"):
        raise BadRequest("the API token has a space or a line break in it")
    path = parts.path.rstrip("/")
    return Endpoint(
        parts.scheme,
        parts.hostname,
        port or DEFAULT_PORTS[parts.scheme],
        path if path.endswith(API_PREFIX) else path + API_PREFIX,
        token,
        ca_file,
        connect_timeout,
    )


def _bad_url(url: str, why: str) -> BadRequest:
    return BadRequest(
        f"'{url}' is not the URL of a broker: {why}", hint="it looks like http://127.0.0.1:8000"
    )
