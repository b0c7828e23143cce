"""The sound of events: some seconds before and after each, kept as FLAC or OGG, the oldest removed when there are too
many.

Sound in which somebody speaks is not kept, unless the settings ask for it: a detector of dangers is no reason to record
what people say at home. Speech is what the detector takes for speech; it may miss some.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from danger_safe.audio.pcm import SAMPLE_RATE
from danger_safe.audio.windows import ScoredWindow
from danger_safe.core.atomic import atomic_path, make_folder
from danger_safe.core.errors import UserError
from danger_safe.live.alarms import LiveEvent
from danger_safe.live.config import RecordConfig
from danger_safe.live.disk_limit import remove_oldest
from danger_safe.live.sound_buffer import SoundBuffer

SLACK_S = 16.0  # of sound that is held besides: an end is known seconds late, and the engine may be behind
SPEECH = "speech"  # the detector's category
SUFFIXES = (".flac", ".ogg")
CHUNK = SAMPLE_RATE  # samples written at once: libsndfile's Vorbis encoder overflows on many more
MAX_WAITING = 20  # sounds that wait for the disk


@dataclass
class _Ear:
    """What is known of one source's connection."""

    sound: SoundBuffer
    heard_s: float = 0.0  # up to here windows were scored
    speech: deque[tuple[float, float]] = field(default_factory=deque)  # windows in which somebody speaks
    ended: list[LiveEvent] = field(default_factory=list)  # whose seconds afterwards are not all there yet
    written: str = ""  # the id of an event that goes on, whose sound is long enough already


class Recorder:
    """Writes events' sounds into a folder, named by the events' ids, in a thread of its own."""

    def __init__(self, config: RecordConfig, say: Callable[[str], None]):
        """Raises UserError where the folder cannot be made."""
        self._config, self._say = config, say
        self._folder = Path(config.folder)
        make_folder(self._folder)
        self._ears: dict[str, _Ear] = {}
        self._sounds: queue.Queue[tuple[str, np.ndarray] | None] = queue.Queue(MAX_WAITING)
        self._is_told = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def new_buffer(self) -> SoundBuffer:
        """For a new connection of a source."""
        config = self._config
        return SoundBuffer(config.before_seconds + config.max_seconds + config.after_seconds + SLACK_S)

    def begin(self, event: LiveEvent) -> None:
        """Its sound is complete later."""

    def end(self, event: LiveEvent) -> None:
        """An event has ended: its sound is written when the seconds afterwards are there."""
        ear = self._ears.get(event.source)
        if ear is not None and event.id != ear.written:
            ear.ended.append(event)

    def follow(
        self, source: str, sound: SoundBuffer, window: ScoredWindow, names: list[str], going_on: LiveEvent | None
    ):
        """The next window of a source, what it sounds like, and the event that goes on there."""
        ear = self._ears.get(source)
        if ear is None or ear.sound is not sound:
            self.flush(source)
            ear = self._ears[source] = _Ear(sound)
        ear.heard_s = window.end
        if names[:1] == [SPEECH]:
            ear.speech.append((window.start, window.end))
        while ear.speech and ear.speech[0][1] < window.end - self._config.max_seconds - SLACK_S - 60:
            ear.speech.popleft()
        ready = [event for event in ear.ended if window.end >= self._span(event)[1]]
        ear.ended = [event for event in ear.ended if event not in ready]
        for event in ready:
            self._keep(ear, event)
        if going_on is not None and going_on.id != ear.written:
            begin, _ = self._span(going_on)
            if window.end >= begin + self._config.max_seconds:
                ear.written = going_on.id
                self._keep(ear, going_on)

    def flush(self, source: str) -> None:
        """A connection has ended: what is there of its events' sounds is all that will be."""
        ear = self._ears.pop(source, None)
        if ear is not None:
            for event in ear.ended:
                self._keep(ear, event)

    def close(self) -> None:
        """Write what waits."""
        for source in list(self._ears):
            self.flush(source)
        self._sounds.put(None)
        self._thread.join()

    def _span(self, event: LiveEvent) -> tuple[float, float]:
        """From when to when its sound is kept, in seconds of the connection."""
        begin = max(0.0, event.event.start - self._config.before_seconds)
        return begin, min(event.event.end + self._config.after_seconds, begin + self._config.max_seconds)

    def _keep(self, ear: _Ear, event: LiveEvent) -> None:
        begin, end = self._span(event)
        spoken = any(since < end and until > begin for since, until in ear.speech)
        if not self._config.speech_too and (spoken or SPEECH in dict(event.event.heard)):
            self._say(f"{event.source}: the sound of {event.id} is not kept: somebody speaks in it")
            return
        try:
            self._sounds.put_nowait((event.id, ear.sound.cut(begin, end)))
        except queue.Full:
            self._tell("the disk is too slow")

    def _run(self) -> None:
        while (item := self._sounds.get()) is not None:
            try:
                self._write(*item)
                self._remove_oldest()
            except (OSError, RuntimeError, UserError) as error:  # RuntimeError is libsndfile's
                self._tell(getattr(error, "strerror", None) or str(error))
            else:
                self._is_told = False

    def _write(self, name: str, samples: np.ndarray) -> None:
        path = self._folder / f"{name}.{self._config.format}"
        with atomic_path(path) as part, soundfile.SoundFile(
            part, "w", SAMPLE_RATE, 1, format=self._config.format.upper()
        ) as file:  # fmt: skip
            for begin in range(0, len(samples), CHUNK):
                file.write(samples[begin : begin + CHUNK])

    def _remove_oldest(self) -> None:
        """Keep to the limits in days and megabytes; the newest stays in any case."""
        files = (file for file in self._folder.iterdir() if file.suffix in SUFFIXES)
        remove_oldest(files, self._config.max_megabytes, self._config.max_days)

    def _tell(self, problem: str) -> None:
        if not self._is_told:
            self._is_told = True
            self._say(f"{self._folder}: the sound of an event could not be kept: {problem}")
