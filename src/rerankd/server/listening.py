"""Binds sockets to a host and port, or to a socket file. Knows no HTTP."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rerankd.errors import SettingsError

SOCKET_MODE = 0o660
"""Mode of a socket file: its owner and group may connect."""


def bind(host: str, port: int, uds: Path | None) -> list[socket.socket]:
    """Binds sockets, without listening on them.

    Args:
        host: a name or address; `::` accepts IPv4 as well.
        port: 0 chooses a free port, the same for all addresses of the host.
        uds: a socket file, instead of host and port.

    Raises:
        SettingsError: an address cannot be bound; the message has the way out.
    """
    return [_bind_file(uds)] if uds else _bind_host(host, port)


def remove_files(bound: Sequence[socket.socket]) -> None:
    """Removes the socket file, if there is one."""
    for one in bound:
        if one.fileno() >= 0 and one.family == socket.AF_UNIX:
            with suppress(OSError):
                os.unlink(one.getsockname())


def address_of(bound: socket.socket, scheme: str) -> str:
    """The address as a URL."""
    name = bound.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _bind_host(host: str, port: int) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(
            f"{host} is not an address of this machine ({error.strerror}): pass --host 127.0.0.1, --host 0.0.0.0, or a "
            "name that it has."
        ) from None
    bound: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            bound.append(_bind(family, (address[0], port), host))
            port = bound[0].getsockname()[1]
    except SettingsError:
        for one in bound:
            one.close()
        raise
    return bound


def _bind(family: int, address: Sequence[str | int], host: str) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # Only `::` accepts both versions. For other names, IPv4 has a socket of its own.
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
    try:
        one.bind(tuple(address))
    except OSError as error:
        one.close()
        raise SettingsError(_why_not(error, *address)) from None
    return one


def _why_not(error: OSError, host: str | int, port: str | int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another program: pass --port with another one, or --port 0."
    if error.errno == errno.EACCES:
        return f"Port {port} may not be opened by this user: pass --port with a number from 1024 on."
    return f"{host} port {port} cannot be listened on ({error.strerror}): pass --host with an address of this machine."


def _bind_file(path: Path) -> socket.socket:
    _remove_stale(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.bind(str(path))
        path.chmod(SOCKET_MODE)  # before anybody can connect: that takes listen()
    except OSError as error:
        one.close()
        why = error.strerror or str(error)
        raise SettingsError(f"{path} cannot be made ({why}): pass --uds with another file.") from None
    return one


def _remove_stale(path: Path) -> None:
    """Removes the socket file that a killed server left."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SettingsError(f"{path} exists and is not a socket: pass --uds with another file.")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"{path} cannot be used ({error.strerror}): pass --uds with another file.") from None
    else:
        raise SettingsError(f"Another server listens on {path}: stop it, or pass --uds with another file.")
