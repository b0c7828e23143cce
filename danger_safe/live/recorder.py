"""Record the sound of events with some seconds before and after, as FLAC or OGG, and remove the oldest recordings.

Sound with speech is not recorded unless the settings ask for it: a detector of dangers is no reason to record what
people say at home. Speech is what the detector takes for speech; it may miss some.
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

SLACK_S = 16.0  # seconds of sound in the buffer beyond a recording: events are known late, the engine may lag
SPEECH = "speech"  # category of the detector
SUFFIXES = (".flac", ".ogg")
WRITE_SIZE = SAMPLE_RATE  # samples written at once: libsndfile's Vorbis encoder overflows on many more
MAX_WAITING = 20  # sounds in the queue to the disk


@dataclass
class _Connection:
    """One source's connection: its sound, its speech and the events to be recorded."""

    sound: SoundBuffer
    speech: deque[tuple[float, float]] = field(default_factory=deque)  # (start, end) in s of windows with speech
    pending: list[LiveEvent] = field(default_factory=list)  # ended events, until the seconds after them are there
    recorded_id: str = ""  # of the current event, if its recording has reached the maximum length


class Recorder:
    """Writes the sound of each event into a file named by its id, in a thread of its own."""

    def __init__(self, config: RecordConfig, say: Callable[[str], None]):
        """Raises UserError if the folder cannot be made."""
        self._config, self._say = config, say
        self._folder = Path(config.folder)
        make_folder(self._folder)
        self._connections: dict[str, _Connection] = {}
        self._sounds: queue.Queue[tuple[str, np.ndarray] | None] = queue.Queue(MAX_WAITING)
        self._has_reported = False  # the problem that lasts
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def new_buffer(self) -> SoundBuffer:
        """Return the sound buffer of a new connection."""
        config = self._config
        return SoundBuffer(config.before_seconds + config.max_seconds + config.after_seconds + SLACK_S)

    def on_alarm_start(self, event: LiveEvent) -> None:
        """Do nothing: the sound is recorded when the event has ended."""

    def on_event_end(self, event: LiveEvent) -> None:
        """Record the event as soon as the seconds after it are there."""
        connection = self._connections.get(event.source)
        if connection is not None and event.id != connection.recorded_id:
            connection.pending.append(event)

    def on_window(
        self, source: str, sound: SoundBuffer, window: ScoredWindow, names: list[str], current: LiveEvent | None
    ) -> None:
        """Process the next window of a source.

        Args:
            source: Name of the source.
            sound: The buffer of its connection.
            window: The window.
            names: Its categories, most probable first.
            current: The event that has not ended, if there is one.
        """
        connection = self._connections.get(source)
        if connection is None or connection.sound is not sound:
            self.on_disconnect(source)
            connection = self._connections[source] = _Connection(sound)
        speech = connection.speech
        if names[:1] == [SPEECH]:
            speech.append((window.start, window.end))
        while speech and speech[0][1] < window.end - self._config.max_seconds - SLACK_S - 60:
            speech.popleft()
        complete = [event for event in connection.pending if window.end >= self._span(event)[1]]
        connection.pending = [event for event in connection.pending if event not in complete]
        for event in complete:
            self._record(connection, event)
        if current is not None and current.id != connection.recorded_id:
            begin, _ = self._span(current)
            if window.end >= begin + self._config.max_seconds:
                connection.recorded_id = current.id
                self._record(connection, current)

    def on_disconnect(self, source: str) -> None:
        """Record what there is of the pending events: no more sound will come."""
        connection = self._connections.pop(source, None)
        if connection is not None:
            for event in connection.pending:
                self._record(connection, event)

    def close(self) -> None:
        """Write all pending events and stop the thread."""
        for source in list(self._connections):
            self.on_disconnect(source)
        self._sounds.put(None)
        self._thread.join()

    def _span(self, event: LiveEvent) -> tuple[float, float]:
        """Return begin and end of an event's recording, in seconds of the connection."""
        begin = max(0.0, event.event.start - self._config.before_seconds)
        return begin, min(event.event.end + self._config.after_seconds, begin + self._config.max_seconds)

    def _record(self, connection: _Connection, event: LiveEvent) -> None:
        """Queue an event's sound for the disk, unless it has speech."""
        begin, end = self._span(event)
        has_speech = any(speech_start < end and speech_end > begin for speech_start, speech_end in connection.speech)
        if not self._config.speech_too and (has_speech or SPEECH in dict(event.event.heard)):
            self._say(f"{event.source}: the sound of {event.id} is not kept: somebody speaks in it")
            return
        try:
            self._sounds.put_nowait((event.id, connection.sound.cut(begin, end)))
        except queue.Full:
            self._report("the disk is too slow")

    def _run(self) -> None:
        while (item := self._sounds.get()) is not None:
            try:
                self._write(*item)
                self._remove_oldest()
            except (OSError, RuntimeError, UserError) as error:  # libsndfile raises RuntimeError
                self._report(getattr(error, "strerror", None) or str(error))
            else:
                self._has_reported = False

    def _write(self, event_id: str, samples: np.ndarray) -> None:
        path = self._folder / f"{event_id}.{self._config.format}"
        with (
            atomic_path(path) as part,
            soundfile.SoundFile(part, "w", SAMPLE_RATE, 1, format=self._config.format.upper()) as file,
        ):
            for begin in range(0, len(samples), WRITE_SIZE):
                file.write(samples[begin : begin + WRITE_SIZE])

    def _remove_oldest(self) -> None:
        """Remove the oldest recordings beyond the limits in days and megabytes."""
        files = (file for file in self._folder.iterdir() if file.suffix in SUFFIXES)
        remove_oldest(files, self._config.max_megabytes, self._config.max_days)

    def _report(self, problem: str) -> None:
        """Report a problem, once until something could be written again."""
        if not self._has_reported:
            self._has_reported = True
            self._say(f"{self._folder}: the sound of an event could not be kept: {problem}")
