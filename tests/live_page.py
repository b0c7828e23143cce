"""Helpers for the tests of the page: the page on a real port, with simulated sources and without a network."""

import http.client
import json
import re
import socket
import time
from types import SimpleNamespace

import numpy as np
import soundfile

from danger_safe.audio.windows import ScoredWindow
from danger_safe.live.alarms import Policy, Tracker
from danger_safe.live.config import AlarmConfig, Config, LogConfig, PageConfig, RecordConfig, SourceConfig
from danger_safe.live.event_log import EventLog
from danger_safe.live.page_service import PageService
from danger_safe.live.sources import Source, WindowQueue

RATE, HOP, WINDOW = 32_000, 0.5, 3.0
THRESHOLD = 0.7
NAMES = (*map(str, range(524)), "Siren", "Police car (siren)", "Speech")
LOGITS = np.array([-9.0] * 524 + [2.0, 0.5, -2.0])


class Named:
    """A detector whose embeddings begin with the number of a category."""

    CATEGORIES = ("siren", "dog", "chainsaw")

    @classmethod
    def tags(cls, embedding):
        return ((cls.CATEGORIES[int(embedding[0])], 0.9),)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Stage:
    """A page with its sources and event log in a folder."""

    def __init__(self, folder, heard=("front door",), alarm=None, record=True, **page):
        self.folder, self.said = folder, []
        self.port = page.setdefault("port", free_port())
        recordings = RecordConfig(str(folder / "recordings")) if record else None
        if record:
            (folder / "recordings").mkdir(exist_ok=True)
        alarm = alarm or AlarmConfig()
        sources = [SourceConfig(name, stdin="wav") for name in heard]
        log = LogConfig(str(folder / "events.jsonl"))
        self.config = Config(sources, alarm, {"dog": False}, None, [], [], log, recordings, PageConfig(**page))
        self.log = EventLog(folder / "events.jsonl", self.said.append)
        inbox = WindowQueue()
        self.sources = {s.name: Source(s, inbox, self.said.append, WINDOW, HOP) for s in sources}
        self.policies = {name: Policy(alarm, self.config.categories, THRESHOLD) for name in heard}
        engine = SimpleNamespace(
            info=SimpleNamespace(sha256="ab" * 32, categories=NAMES, settings={"classes": 527}),
            head=lambda embedding: LOGITS,
        )
        self.page = PageService(self.config, engine, list(self.sources.values()), self.policies, self.said.append)
        self.trackers, self.windows, self.begun = {}, dict.fromkeys(heard, 0), time.time() - 600

    def __enter__(self):
        self.page.start()
        return self

    def __exit__(self, *_):
        self.page.close()

    def hear(self, name, scores, kind=0, level=0.05, silent=False, now=False):
        """Add windows with these scores to a source; ``kind``: of Named.CATEGORIES; ``now``: they end now."""
        self.sources[name].status = "listening"
        tracker = self.trackers.setdefault(name, Tracker(name, self.policies[name], Named, HOP, [self.log, self.page]))
        samples = np.full(int(WINDOW * RATE), level, np.float32)
        for score in scores:
            start = self.windows[name] * HOP
            self.windows[name] += 1
            embedding = np.full(768, kind, np.float32)
            window = ScoredWindow(
                start, start + WINDOW, score, score, embedding, is_silent=silent, band_levels=np.zeros((10, 32))
            )
            at = time.time() if now else self.begun + window.end
            tracker.add(window, at)
            self.page.on_window(name, samples, window, tracker.current, at)

    def plant(self, name, kind=0, seconds=3.0, sound=True):
        """Add an event between silences, with its sound; return its id."""
        self.hear(name, [0.05] * 12)
        self.hear(name, [0.4, 0.8] + [0.93] * int(seconds / HOP) + [0.5], kind)
        self.hear(name, [0.05] * 40)
        event = json.loads((self.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        if sound:
            time_s = np.arange(8 * RATE) / RATE
            tone = 0.2 * np.sin(2 * np.pi * (900 * time_s + 200 * np.sin(3 * time_s))) * ((time_s > 4) & (time_s < 7))
            noise = np.random.default_rng(0).standard_normal(len(time_s)) * 0.003
            soundfile.write(self.folder / "recordings" / f"{event['id']}.flac", tone + noise, RATE)
        return event["id"]

    def windows_file(self, event):
        return self.folder / "windows" / f"{event}.npz"

    def client(self):
        return Client(self.port)


class Client:
    """A minimal browser that keeps cookies."""

    def __init__(self, port):
        self.port, self.cookies, self.token = port, {}, ""

    def ask(self, path, method="GET", body=None, raw_path=None, **headers):
        """Return (status, headers, body). Arguments set headers; None removes a default one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": f"127.0.0.1:{self.port}"}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if method == "POST":
            sent["Origin"] = f"http://127.0.0.1:{self.port}"
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        connection.putrequest(method, raw_path or path, skip_host=True, skip_accept_encoding=True)
        body = body.encode() if isinstance(body, str) else body
        if body is not None:
            sent.setdefault("Content-Length", str(len(body)))
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.split(";")[0].partition("=")
            self.cookies[name] = value
        connection.close()
        return answer.status, answer.headers, content

    def open(self, **headers):
        """Return the page's text; store its token."""
        status, _, content = self.ask("/", **headers)
        text = content.decode()
        self.token = re.search(r'name="token" (?:content|value)="(\w+)"', text)[1]
        return status, text

    def state(self, **headers):
        return json.loads(self.ask("/state", **headers)[2])

    def judge(self, event, verdict, **headers):
        """Send a verdict; return the status."""
        body = json.dumps({"event": event, "verdict": verdict})
        return self.ask("/verdict", "POST", body, **{"x_token": self.token, **headers})[0]
