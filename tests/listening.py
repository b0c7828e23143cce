"""Helpers for the tests of listen.py: a siren, a web server that receives alarms."""

import hashlib
import hmac
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

RATE = 32_000


def siren(seconds):
    """Return a siren with overtones at 32 kHz, (samples,)."""
    time_s = np.arange(seconds * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(900 + 300 * np.sin(2 * time_s)) / RATE
    return 0.3 * sum(np.sin(number * phase) / number for number in range(1, 8))


@dataclass
class Post:
    """A request that was accepted."""

    body: bytes
    signature: str | None
    login: str | None


class PostServer:
    """Answers GET with a recording; accepts POSTs after refusing the first ``failures``."""

    def __init__(self, recording=b"", failures=0, status=503):
        self.posts, self.refused = [], 0
        ours = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "audio/wav")
                self.end_headers()
                self.wfile.write(recording)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refuse = ours.refused < failures
                ours.refused += refuse
                if not refuse:
                    ours.posts.append(
                        Post(body, self.headers["X-Danger-Safe-Signature"], self.headers["Authorization"])
                    )
                self.send_response(status if refuse else 204)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port

    @staticmethod
    def sign(body, secret):
        return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
