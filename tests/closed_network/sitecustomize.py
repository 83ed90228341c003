"""No network in tests: connections to anything but this machine's loopback are refused, in child processes too."""

import ipaddress
import socket
from typing import Any

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo


def _check(family: int, address: Any) -> None:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    try:
        allowed = ipaddress.ip_address(host).is_loopback
    except ValueError:
        allowed = host in ("localhost", "")
    if not allowed:
        raise OSError(f"the tests have no network: connection to {host} refused")


def connect(self: socket.socket, address: Any) -> None:
    _check(self.family, address)
    _connect(self, address)


def connect_ex(self: socket.socket, address: Any) -> int:
    _check(self.family, address)
    return _connect_ex(self, address)


def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
    if host not in (None, "", "localhost", socket.gethostname()):
        _check(socket.AF_INET, (host.decode() if isinstance(host, bytes) else host,))
    return _getaddrinfo(host, *arguments, **options)


socket.socket.connect = connect  # type: ignore[method-assign]
socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]
socket.getaddrinfo = getaddrinfo
