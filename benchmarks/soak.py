"""A day of sound in less than an hour: listen.py on recordings that are played end to end, with its page open and used.

    python benchmarks/soak.py RECORDINGS/ --false-alarm kettle.wav --folder soak        # 24 hours of audio
    python benchmarks/soak.py RECORDINGS/ --folder soak8 --sources 8 --hours 4 --real-time
    python benchmarks/soak_report.py soak                             # of a run that goes on, or was killed

In:   recordings, played one after another, again and again, at each source's address, as fast as listen.py takes them
Out:  Markdown: memory and its growth, file descriptors, threads, and the events beside those that predict_danger.py
      finds in the recordings. All that it was made of stays in --folder: samples.jsonl, events.jsonl, stderr.txt, …

The first source is one connection that never ends; the others hang up after each hour of sound, and are connected anew.
The page is read every second; twice a minute an event gets a verdict, from which listen.py learns: those of the
recordings --false-alarm three times "false alarm", one of the others "right", and then all are taken back, over and
over. The sounds of events are limited to so few megabytes that the oldest are removed. Needs ffmpeg and Linux: memory
is the resident set size of listen.py and the network's process, without ffmpeg.
"""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.soak_report import ROOT, expect, place, read_lines, report
from danger_safe.audio.decode import read_clip
from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.core import cli
from danger_safe.core.errors import UserError
from danger_safe.data.clips import list_sounds
from danger_safe.detection.scorer import HOP_S
from danger_safe.live.verdicts import NONE, VERDICTS_FILE, Verdict, append_verdict

HANG_UP_S = 3600.0  # of sound, after which sources but the first end
SAMPLE_S, PAGE_S, VERDICT_S = 15.0, 1.0, 30.0  # between two looks at the memory, at the page, between two verdicts
VERDICTS = ("false_alarm", "false_alarm", "false_alarm", "right", "none", "none", "none", "none")
CONFIG = """
alarm.cooldown_seconds = 0
record = {{ max_megabytes = 5 }}
page = {{ port = {page} }}
webhook = [{{ url = "http://127.0.0.1:{port}/alarm" }}]
"""
SOURCE = '[[source]]\nname = "source {n}"\nurl = "http://127.0.0.1:{port}/{n}"\n'


class Player:
    """Plays the recordings at http://127.0.0.1:port/SOURCE, and takes webhooks."""

    def __init__(self, recordings: list[np.ndarray], speed: float):
        """``recordings``: int16. ``speed``: at most so many times as fast as the sound."""
        loop_s = sum(map(len, recordings)) / SAMPLE_RATE
        self.loops = max(1, round(HANG_UP_S / loop_s))  # of a connection that ends
        self.sent_s: dict[str, float] = {}  # of each source's sound
        ours, endless = self, 0xFFFFFFFF.to_bytes(4, "little")
        header = b"RIFF" + endless + b"WAVEfmt \x10\0\0\0\1\0\1\0" + SAMPLE_RATE.to_bytes(4, "little")
        header += (2 * SAMPLE_RATE).to_bytes(4, "little") + b"\2\0\x10\0data" + endless

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "audio/wav")
                self.end_headers()
                with contextlib.suppress(OSError):  # listen.py has ended
                    self.wfile.write(header)
                    began, sent_s, loop = time.monotonic(), 0.0, 0
                    while self.path == "/1" or loop < ours.loops:
                        for samples in recordings:
                            for place in range(0, len(samples), SAMPLE_RATE):
                                second = samples[place : place + SAMPLE_RATE]
                                time.sleep(max(0.0, sent_s / speed - (time.monotonic() - began)))
                                self.wfile.write(second.tobytes())
                                sent_s += len(second) / SAMPLE_RATE
                                ours.sent_s[self.path] = ours.sent_s.get(self.path, 0) + len(second) / SAMPLE_RATE
                        loop += 1

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()

    @property
    def hours(self) -> float:
        """Of sound that was sent, of all sources."""
        return sum(self.sent_s.values()) / 3600


class Visitor:
    """Has the page open, looks at pictures, plays sounds and gives verdicts, in a thread of its own."""

    def __init__(self, folder: Path, port: int, false_alarms: list[int], lengths: list[float]):
        """``false_alarms``: numbers of the recordings whose events are called so."""
        self._log, self._address = folder / "events.jsonl", f"http://127.0.0.1:{port}"
        self._false_alarms, self._lengths = false_alarms, lengths
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._token, self._version = "", ""
        self._judged: list[str] = []
        self.verdicts, self.problems = 0, 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        turn, judged_at = 0, time.monotonic()
        while True:
            time.sleep(PAGE_S)
            try:
                self._look()
                if time.monotonic() - judged_at >= VERDICT_S:
                    judged_at, turn = time.monotonic(), turn + self._judge(VERDICTS[turn % len(VERDICTS)])
            except (OSError, ValueError):  # of the page, which is not open yet, or has ended
                self.problems += bool(self._token)

    def _ask(self, path: str, body: dict | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Origin": self._address, "X-Token": self._token})
        with self._opener.open(request, timeout=60) as answer:
            return answer.read()

    def _look(self) -> None:
        if not self._token:
            found = re.search(r'name="token" content="(\w+)"', self._ask("/").decode())
            self._token = found[1] if found else ""
        state = json.loads(self._ask(f"/state?seen={self._version}"))
        self._version = state.get("version", self._version)
        for event in state.get("events", [])[:1]:
            for kind in ["picture"] * bool(event["drawn"]) + ["sound"] * event["sound"]:
                with contextlib.suppress(urllib.error.HTTPError):  # it was removed meanwhile
                    self._ask(f"/{kind}/{event['id']}")

    def _judge(self, said: str) -> bool:
        """Give a verdict on the newest event that it fits; whether there was one."""
        if said == NONE:  # as the page writes it, which shows only the newest events
            self._take_back(self._judged.pop(0))
        else:
            events = [event for event in read_lines(self._log)[-40:] if event["id"] not in self._judged]
            wanted = [event["id"] for event in events if self._is_false_alarm(event) == (said == "false_alarm")]
            if not wanted:
                return False
            self._ask("/verdict", {"event": wanted[-1], "verdict": said})
            self._judged.append(wanted[-1])
        self.verdicts += 1
        return True

    def _is_false_alarm(self, event: dict) -> bool:
        return place(event["start"], self._lengths)[0] in self._false_alarms

    def _take_back(self, event: str) -> None:
        append_verdict(self._log.with_name(VERDICTS_FILE), Verdict(event, "", "", NONE, "", None, None))


def run(args, recordings: list[np.ndarray], lengths: list[float], false_alarms: list[int]) -> None:
    """Play until there were enough hours; what is known meanwhile is in the folder."""
    folder, player = args.folder, Player(recordings, 1.0 if args.real_time else 1e9)
    with socket.create_server(("127.0.0.1", 0)) as free:
        page = free.getsockname()[1]
    sources = "".join(SOURCE.format(n=n + 1, port=player.port) for n in range(args.sources))
    (folder / "listen.toml").write_text(CONFIG.format(page=page, port=player.port) + sources, encoding="utf-8")
    with open(folder / "stderr.txt", "w") as words, open(folder / "stdout.txt", "w") as lines:
        service = subprocess.Popen([sys.executable, ROOT / "listen.py"], cwd=folder, stdout=lines, stderr=words)
    visitor, began, sampled = Visitor(folder, page, false_alarms, lengths), time.monotonic(), 0.0
    try:
        with tqdm(total=args.hours, unit="h", disable=args.quiet or None) as bar:
            while player.hours < args.hours and service.poll() is None:
                time.sleep(0.5)
                bar.update(min(player.hours, args.hours) - bar.n)
                if time.monotonic() - sampled >= SAMPLE_S:
                    sampled = time.monotonic()
                    sample = {"seconds": sampled - began, "hours": player.hours, **measure(service.pid, folder)}
                    sample |= {"verdicts": visitor.verdicts, "problems": visitor.problems}
                    with open(folder / "samples.jsonl", "a", encoding="utf-8") as file:
                        file.write(json.dumps(sample) + "\n")
    finally:
        service.send_signal(signal.SIGTERM)
        status = service.wait(60)
    if status:
        raise UserError(f"listen.py ended with status {status}: see {folder / 'stderr.txt'}")


def measure(pid: int, folder: Path) -> dict:
    """Megabytes of listen.py and of the network's process, and what else could grow."""
    service = psutil.Process(pid)
    processes = [service, *(child for child in service.children() if child.name() != "ffmpeg")]
    megabytes = [process.memory_info().rss / 1e6 for process in processes]
    disk = {
        f"{name}_mb": sum(file.stat().st_size for file in (folder / name).glob("*.*") if file.exists()) / 1e6
        for name in ("recordings", "windows")
    }
    return {"listen_mb": megabytes[0], "network_mb": sum(megabytes[1:]), "threads": service.num_threads(),
            "descriptors": service.num_fds()} | disk  # fmt: skip


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    if (args.folder / "samples.jsonl").exists():
        raise UserError(f"{args.folder} holds a run already")
    files = [
        file for path in args.recordings for file in ([f for _, f in list_sounds(path)] if path.is_dir() else [path])
    ]
    files = [file for file in files if file not in args.false_alarm] + args.false_alarm
    args.folder.mkdir(parents=True, exist_ok=True)
    hop = round(HOP_S * SAMPLE_RATE)  # whole hops, so that a recording's windows are the same in each loop
    clips = [read_clip(file) for file in files]
    recordings = [np.round(clip[: len(clip) // hop * hop] * 32767).astype(np.int16) for clip in clips]
    lengths = [len(samples) / SAMPLE_RATE for samples in recordings]
    events = expect(args.folder, [file.stem for file in files], recordings)
    false_alarms = list(range(len(files) - len(args.false_alarm), len(files)))
    plan = {"sources": args.sources, "lengths": lengths, "events": events, "false_alarms": false_alarms,
            "loops": max(1, round(HANG_UP_S / sum(lengths)))}  # fmt: skip
    (args.folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    try:
        run(args, recordings, lengths, false_alarms)
    finally:
        if (args.folder / "samples.jsonl").exists():
            print(report(args.folder))
    return cli.DONE


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("recordings", type=Path, nargs="+", metavar="RECORDING", help="recordings, or folders of them")
    add("--false-alarm", type=Path, nargs="+", default=[], metavar="FILE", help="recordings of what is no danger")
    add("--folder", type=Path, required=True, help="for all that is written")
    add("--hours", type=cli.number(0.01), default=24.0, help="of audio, of all sources together")
    add("--sources", type=cli.whole_number(1), default=2, metavar="N")
    add("--real-time", action="store_true", help="no faster than the sound")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
