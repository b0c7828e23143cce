"""The page's web server: uvicorn in a thread, with few connections, none of which can stay open without requests."""

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
REQUEST_S = 20.0  # seconds until a request must be complete
THREADS = 1  # for blocking work; each more would need some megabytes
CLOSE_S = 2  # seconds that open requests get when the server is closed
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Server:
    """Serves an ASGI application; its failures do not leave its thread."""

    def __init__(self, host: str, port: int, app: Callable, say: Callable[[str], None]):
        """Open the port.

        Args:
            host: Address to listen on.
            port: Its port.
            app: The ASGI application.
            say: Reports problems.

        Raises:
            UserError: The port cannot be opened.
        """
        self._say = say
        self._socket = open_socket(host, port)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=CLOSE_S,
            )
        )
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it logs every connection that a browser aborts
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        """Start to answer requests."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering requests and close all connections."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(CLOSE_S + 3)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # even SystemExit must end only the page
            self._say(f"the page has ended: {type(error).__name__}: {error}; listening goes on")


class _Connection(H11Protocol):
    """A connection that is closed if there are too many, or if its request is not completed in time."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
            return
        self._watch = self.loop.call_later(REQUEST_S, self._check_request)

    def connection_lost(self, exc) -> None:
        super().connection_lost(exc)
        if hasattr(self, "_watch"):
            self._watch.cancel()

    def _check_request(self) -> None:
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and (self.cycle is None or self.conn.trailing_data[0]) and self.conn.their_state is h11.IDLE:
            self.transport.close()
        else:
            self._watch = self.loop.call_later(REQUEST_S, self._check_request)


def guard(app: Callable, access: Access) -> Callable:
    """Wrap an ASGI application: refuse requests that the access rules forbid, and add the security headers."""

    async def guarded_app(scope, receive, send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_RAW_HEADERS]
            await send(message)

        current_default_thread_limiter().total_tokens = THREADS
        request, responder = Request(scope), app
        if not access.knows_host(request.headers.get("host", "")):
            responder = PlainTextResponse("This computer has another name: see names in [page].", 421)
        elif access.is_cross_site(request.headers):
            responder = PlainTextResponse("Another site asked for this.", 403)
        elif request.method not in ("GET", "HEAD") and not access.is_same_origin(request.headers):
            responder = PlainTextResponse("This did not come from the page itself.", 403)
        await responder(scope, receive, send_with_headers)

    return guarded_app


def open_socket(host: str, port: int) -> socket.socket:
    """Open the page's listening socket. Raises UserError if that fails."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        in_use = error.errno in (errno.EADDRINUSE, errno.EACCES) and port > 1024  # EACCES on Windows
        reason = "another program has it, perhaps another listen.py" if in_use else error.strerror or str(error)
        raise UserError(f"[page]: port {port} of {host} cannot be opened: {reason}") from error


async def read_body(request: Request, max_bytes: int) -> bytes | None:
    """Return the body of a request; None if it is longer than ``max_bytes`` or not complete in time."""
    received = b""
    try:
        async with asyncio.timeout(REQUEST_S):
            async for chunk in request.stream():
                received += chunk
                if len(received) > max_bytes:
                    return None
    except TimeoutError:
        return None
    return received
