"""Checks of a request's headers: their size and number, Host, Trailer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from serving.errors import Refusal
from serving.http.exchange import Headers, header_values

__all__ = [
    "MAX_HEADERS",
    "MAX_HEADER_BYTES",
    "Hosts",
    "check_headers",
    "is_loopback",
    "too_large",
    "trailers",
    "two_hosts",
]

MAX_HEADER_BYTES = 64 << 10  # names, values and the request line; what h11 and nginx allow by default
MAX_HEADERS = 100
BYTES_PER_HEADER = 4  # colon, space and line end
ADDED_BY_SERVE = b"x-request-id"
# RFC 3986, section 3.2.2, without percent-encoding: a name, an IPv4 address or an IPv6 address in brackets.
_HOST = re.compile(rb"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")


class Hosts:
    """The names that a service without tokens answers to.

    A web page of somebody else can let its own name resolve to a loopback address (DNS rebinding); the
    browser then treats the service as that page's. Its Host header still has the page's name.

    Args:
        allowed: Names beside `localhost` and all loopback addresses, such as that of a reverse proxy.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(name.lower().removesuffix(".") for name in allowed)

    def check(self, headers: Headers, *, restricted: bool) -> None:
        """Check the Host header of a request.

        Args:
            headers: Of the request.
            restricted: Whether only known names are accepted.

        Raises:
            Refusal: reason `bad_host` where Host is missing, repeated or malformed (400), or has an unknown
                name (421).
        """
        values = header_values(headers, b"host")
        match = _HOST.fullmatch(values[0].strip()) if len(values) == 1 else None
        if match is None:
            raise Refusal(400, "bad_host", "Send one Host header with the name or address of the service.")
        if not restricted:
            return
        name = match[1].decode("ascii").lower().removesuffix(".")
        if not is_loopback(name) and name not in self._allowed:
            message = (
                "This service has no such host name; use localhost, or let its operator set allowed_hosts."
            )
            raise Refusal(421, "bad_host", message)


def check_headers(headers: Headers) -> None:
    """Check size and number of all headers, and that none is announced for after the body.

    Raises:
        Refusal: reason `headers_too_large` or `bad_request`.
    """
    size = sum(len(name) + len(value) + BYTES_PER_HEADER for name, value in headers)
    number = sum(name != ADDED_BY_SERVE for name, _ in headers)
    if size > MAX_HEADER_BYTES or number > MAX_HEADERS:
        raise too_large()
    if header_values(headers, b"trailer"):
        raise trailers()


def too_large() -> Refusal:
    """Return the error of a request with too many or too large headers."""
    message = f"The headers have more than {MAX_HEADER_BYTES} bytes or {MAX_HEADERS} lines; send fewer."
    return Refusal(431, "headers_too_large", message)


def trailers() -> Refusal:
    """Return the error of a request with fields after its body (RFC 9110, section 6.5)."""
    return Refusal(400, "bad_request", "Trailers are not accepted; send all fields before the body.")


def two_hosts() -> Refusal:
    """Return the error of a request whose target and Host differ (RFC 9112, section 3.2.2)."""
    return Refusal(400, "bad_host", "The target and Host name different hosts; send the path alone.")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone: `localhost` or a loopback address, in brackets or not."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:  # another name, whose address is unknown here
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
