"""Forbids the network to every Python process that finds this folder in PYTHONPATH, and keeps a record.

A line a process in the file that NO_NETWORK_LOG names: ``start`` and its command; a line ``tried`` for each forbidden
call, which fails. Sockets between processes of one computer (AF_UNIX) are allowed, loopback is not.
"""

import os
import socket
import sys

LOOK_UPS = (
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
    "urllib.Request",
)
LOCAL = getattr(socket, "AF_UNIX", None)


def _note(kind: str, what: object) -> None:
    with open(os.environ["NO_NETWORK_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{kind} {' '.join(str(what).split())}\n")


def _forbid(event: str, arguments: tuple) -> None:
    made = event == "socket.__new__" and arguments[1] != LOCAL
    # a socket that is made by default is asked for its family only afterwards: -1
    used = (
        event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg") and arguments[0].family != LOCAL
    )
    if (made and arguments[1] != -1) or used or event in LOOK_UPS:
        _note("tried", f"{event} {arguments[1:]} by {sys.orig_argv}")
        raise OSError(f"the tests forbid the network: {event}")


if "NO_NETWORK_LOG" in os.environ:
    _note("start", sys.orig_argv)
    sys.addaudithook(_forbid)
