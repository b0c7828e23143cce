"""Who is told of alarms, besides MQTT: a web address (JSON, signed) and a program. Each has a thread of its own, so
that
one that hangs keeps nobody waiting."""

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
TIMEOUT_S = 10.0  # of one request
COMMAND_TIMEOUT_S = 60.0
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 300.0  # before a request is sent again; each pause is twice the one before
MAX_AGE_S = 3600.0  # a message that could not be delivered for so long is given up
MAX_WAITING = 1000  # messages
_FINAL = frozenset(range(400, 500)) - {408, 425, 429}  # HTTP statuses that a repetition does not change


class Undelivered(Exception):
    """A message could not be delivered; ``is_final``: and never will be."""

    def __init__(self, reason: str, is_final: bool = False):
        super().__init__(reason)
        self.is_final = is_final


class _Outbox:
    """Messages on their way, in order, in a thread of their own."""

    name = ""

    def __init__(self, phases: tuple[str, ...], say: Callable[[str], None]):
        self._phases, self._say = phases, say
        self._messages: queue.Queue[tuple[float, dict]] = queue.Queue(MAX_WAITING)
        self._stop = threading.Event()
        self._is_told = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, event: LiveEvent) -> None:
        """Send that an alarm begins."""
        self._put("begin", event)

    def end(self, event: LiveEvent) -> None:
        """Send that an alarm has ended."""
        if event.is_alarm:
            self._put("end", event)

    def _put(self, phase: str, event: LiveEvent) -> None:
        if phase not in self._phases:
            return
        try:
            self._messages.put_nowait((time.monotonic(), {"phase": phase, **event.record()}))
        except queue.Full:
            self._say(f"{self.name}: {MAX_WAITING} messages wait already; one more was dropped")

    def close(self, timeout_s: float) -> None:
        """Send what waits, for so long at most."""
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
                if given_up or not self._is_told:
                    what = "given up" if given_up else "it is tried again"
                    self._say(f"{self.name}: {error}; {what}")
                self._is_told = not given_up
                if given_up:
                    return
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
            else:
                if self._is_told:
                    self._say(f"{self.name}: delivered again")
                self._is_told = False
                return

    def _send(self, message: dict) -> None:
        """Deliver one. Raises Undelivered."""
        raise NotImplementedError


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without the event, and could lead anywhere."""

    def redirect_request(self, *_):
        """None: it is an error."""


class Webhook(_Outbox):
    """Posts alarms as JSON. The same ``id`` may come twice: an answer can be lost after the message was not."""

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
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            is_final = error.code in _FINAL or 300 <= error.code < 400
            raise Undelivered(f"the answer is HTTP {error.code}", is_final) from error
        except OSError as error:  # URLError and time-outs are such
            raise Undelivered(one_line(str(getattr(error, "reason", error)))) from error
        except Exception as error:  # http.client's own, of answers that are none
            raise Undelivered(f"no answer that HTTP knows ({type(error).__name__})") from error


class Command(_Outbox):
    """Runs a program, without a shell: nothing that was heard or named can be a command."""

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
            done = subprocess.run(
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
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            raise Undelivered(f"exit status {done.returncode}{f' ({one_line(words[-1])})' if words else ''}", True)
