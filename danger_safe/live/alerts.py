"""Send alarms to a webhook (JSON, signed) or a command. Each has its own thread, so that none delays the others."""

import base64
import hashlib
import hmac
import json
import os
import queue
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from danger_safe.core.cli import one_line
from danger_safe.live.alarms import LiveEvent
from danger_safe.live.config import CommandConfig, WebhookConfig, without_secrets

SIGNATURE = "X-Danger-Safe-Signature"
TIMEOUT_S = 10.0  # seconds that one request may take
COMMAND_TIMEOUT_S = 60.0  # seconds that a command may run
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 300.0  # seconds before a retry; each pause is twice the one before
MAX_AGE_S = 3600.0  # seconds; older messages are given up
MAX_WAITING = 1000  # messages in a queue
_FINAL = frozenset(range(400, 500)) - {408, 425, 429}  # HTTP statuses that a retry does not change


class Undelivered(Exception):
    """A message could not be delivered; a retry cannot help if ``is_final``."""

    def __init__(self, reason: str, is_final: bool = False):
        super().__init__(reason)
        self.is_final = is_final


class _Outbox:
    """A queue of messages that a thread delivers in order, with retries."""

    name = ""

    def __init__(self, phases: tuple[str, ...], say: Callable[[str], None]):
        self._phases, self._say = phases, say
        self._messages: queue.Queue[tuple[float, dict]] = queue.Queue(MAX_WAITING)
        self._stop = threading.Event()
        self._has_reported = False  # the failure that lasts
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def on_alarm_start(self, event: LiveEvent) -> None:
        """Send that an alarm has started."""
        self._put("begin", event)

    def on_event_end(self, event: LiveEvent) -> None:
        """Send that an alarm has ended."""
        if event.is_alarm:
            self._put("end", event)

    def _put(self, phase: str, event: LiveEvent) -> None:
        if phase not in self._phases:
            return
        try:
            self._messages.put_nowait((time.monotonic(), {"phase": phase, **event.to_dict()}))
        except queue.Full:
            self._say(f"{self.name}: {MAX_WAITING} messages wait already; one more was dropped")

    def close(self, timeout_s: float) -> None:
        """Send the queued messages, for at most ``timeout_s`` seconds, and stop."""
        deadline = time.monotonic() + timeout_s
        while self._messages.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.05)
        self._stop.set()
        if left := self._messages.unfinished_tasks:
            self._say(f"{self.name}: {left} messages were not delivered")

    def _run(self) -> None:
        while not self._stop.is_set():
            queued, message = self._messages.get()
            self._deliver(queued, message)
            self._messages.task_done()

    def _deliver(self, queued: float, message: dict) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                self._send(message)
            except Undelivered as error:
                given_up = error.is_final or time.monotonic() - queued + pause_s > MAX_AGE_S
                if given_up or not self._has_reported:
                    outcome = "given up" if given_up else "it is tried again"
                    self._say(f"{self.name}: {error}; {outcome}")
                self._has_reported = not given_up
                if given_up:
                    return
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
            else:
                if self._has_reported:
                    self._say(f"{self.name}: delivered again")
                self._has_reported = False
                return

    def _send(self, message: dict) -> None:
        """Deliver one message. Raises Undelivered."""
        raise NotImplementedError


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats redirects as errors: a redirected POST becomes a GET without the event, and could lead anywhere."""

    def redirect_request(self, *_):
        """Return None, which makes the redirect an error."""


class Webhook(_Outbox):
    """Posts alarms as JSON. The same ``id`` may arrive twice, if only the response was lost."""

    def __init__(self, config: WebhookConfig, say: Callable[[str], None]):
        self._config, self.name = config, f"webhook {without_secrets(config.url)}"
        self._opener = urllib.request.build_opener(_NoRedirect)
        parts = urlsplit(config.url)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._login = ""
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._login = f"Basic {base64.b64encode(login.encode()).decode()}"
        super().__init__(config.on, say)

    def _send(self, message: dict) -> None:
        body = json.dumps(message, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "danger-safe"}
        if self._login:
            headers["Authorization"] = self._login
        if self._config.secret:
            headers[SIGNATURE] = f"sha256={hmac.new(self._config.secret.encode(), body, hashlib.sha256).hexdigest()}"
        try:
            request = urllib.request.Request(self._url, body, headers)
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                response.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            is_final = error.code in _FINAL or 300 <= error.code < 400
            raise Undelivered(f"the answer is HTTP {error.code}", is_final) from error
        except OSError as error:  # includes URLError and timeouts
            raise Undelivered(one_line(str(getattr(error, "reason", error)))) from error
        except Exception as error:  # http.client's errors for invalid responses
            raise Undelivered(f"no answer that HTTP knows ({type(error).__name__})") from error


class Command(_Outbox):
    """Runs a program without a shell, so that no name of a source or category can be a command."""

    def __init__(self, config: CommandConfig, say: Callable[[str], None]):
        self._config, self.name = config, f"command {config.run[0]}"
        super().__init__(config.on, say)

    def _send(self, message: dict) -> None:
        environment = {
            "DANGER_PHASE": message["phase"],
            "DANGER_ID": message["id"],
            "DANGER_SOURCE": message["source"],
            "DANGER_CATEGORY": message["category"],
            "DANGER_SCORE": str(message["score"]),
            "DANGER_TIME": message["started_at"],
            "DANGER_EVENT": json.dumps(message, ensure_ascii=False),
        }
        try:
            process = subprocess.run(
                self._config.run,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=COMMAND_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise Undelivered(f"ran longer than {COMMAND_TIMEOUT_S:.0f} s and was ended", True) from error
        except OSError as error:
            raise Undelivered(error.strerror or str(error), True) from error
        if process.returncode:
            lines = process.stderr.decode(errors="replace").strip().splitlines()
            details = f" ({one_line(lines[-1])})" if lines else ""
            raise Undelivered(f"exit status {process.returncode}{details}", True)
