"""The page's web server, in a thread of its own: uvicorn with few connections, and none that waits without end."""

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Callable

import h11
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from danger_safe.core.errors import UserError
from danger_safe.live.page_access import Access

MAX_CONNECTIONS = 64  # more are closed at once: cameras need sockets, too
REQUEST_S = 20.0  # that a request may take to be sent
THREADS = 1  # that makes answers: each more would keep some megabytes
CLOSE_S = 2  # that answers under way may take at the end
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src "
    "'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_ADDED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Server:
    """Answers with an ASGI application; whatever happens to it ends in its thread."""

    def __init__(self, host: str, port: int, app: Callable, say: Callable[[str], None]):
        """Raises UserError where the port cannot be had."""
        self._say = say
        self._socket = listen(host, port)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, http=_Connection, ws="none", lifespan="off", log_config=None, log_level="critical",
                access_log=False,
                proxy_headers=False, server_header=False, timeout_keep_alive=10, timeout_graceful_shutdown=CLOSE_S,
            )
        )  # fmt: skip
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of every browser that hangs up
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        """Answer requests from now on."""
        self._thread.start()

    def close(self) -> None:
        """End it, whoever has it open."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(CLOSE_S + 3)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # SystemExit, too, ends only the page
            self._say(f"the page has ended: {type(error).__name__}: {error}; listening goes on")


class _Connection(H11Protocol):
    """One that is closed where there are too many, or its request does not come."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
            return
        self._watch = self.loop.call_later(REQUEST_S, self._look)

    def connection_lost(self, exc) -> None:
        super().connection_lost(exc)
        if hasattr(self, "_watch"):
            self._watch.cancel()

    def _look(self) -> None:
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and (self.cycle is None or self.conn.trailing_data[0]) and self.conn.their_state is h11.IDLE:
            self.transport.close()
        else:
            self._watch = self.loop.call_later(REQUEST_S, self._look)


def guarded(app: Callable, access: Access) -> Callable:
    """An ASGI application that refuses what is not meant for us, before anything looks at it, and says what browsers
    may do."""

    async def answer(scope, receive, send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_ADDED]
            await send(message)

        current_default_thread_limiter().total_tokens = THREADS
        request, chosen = Request(scope), app
        if not access.knows_host(request.headers.get("host", "")):
            chosen = PlainTextResponse("This computer has another name: see names in [page].", 421)
        elif access.is_from_elsewhere(request.headers):
            chosen = PlainTextResponse("Another site asked for this.", 403)
        elif request.method not in ("GET", "HEAD") and not access.is_own_page(request.headers):
            chosen = PlainTextResponse("This did not come from the page itself.", 403)
        await chosen(scope, receive, send_with_headers)

    return answer


def listen(host: str, port: int) -> socket.socket:
    """A socket for the page. Raises UserError where it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        in_use = error.errno in (errno.EADDRINUSE, errno.EACCES) and port > 1024  # Windows says EACCES
        reason = "another program has it, perhaps another listen.py" if in_use else error.strerror or str(error)
        raise UserError(f"[page]: port {port} of {host} cannot be opened: {reason}") from error


async def body(request: Request, most: int) -> bytes | None:
    """Of a request; None where it is longer than ``most`` bytes or does not come."""
    received = b""
    try:
        async with asyncio.timeout(REQUEST_S):
            async for piece in request.stream():
                received += piece
                if len(received) > most:
                    return None
    except TimeoutError:
        return None
    return received
