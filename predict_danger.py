"""Is there danger in a recording? When, how sure, and what did it sound like?

    python predict_danger.py recording.wav                      # at once, offline: the built-in detector
    python predict_danger.py recordings/ --format csv > windows.csv
    python predict_danger.py recording.wav --plot recording.png
    python predict_danger.py recording.wav --model logreg_model.skops
    python predict_danger.py rtsp://camera/stream               # or ffmpeg -i … -f wav - | python predict_danger.py -
    python predict_danger.py --mic

In:   WAV, FLAC, OGG, MP3 of any rate and length, folders of them, a WAV stream on stdin (-), a microphone; videos,
      other formats and addresses where ffmpeg is installed. Of several channels or tracks, each is heard
Out:  on the terminal, a verdict for each file and its events; --format csv: a row a window; json: a line a file;
      audacity: a label track. Of a stream, events are told as they begin and end. --plot draws waveform, spectrogram,
      score and events

Exit status 0: done; 3: some files could not be read, or not all of them was heard; with --fail-on-danger, 4: danger was
heard. At the threshold or above is danger. Unknown is what is no danger and sounds like nothing in training, for half
of the recording or more. The score is a probability where dangers are as frequent as they were among the clips that it
was calibrated on; in most recordings they are rarer.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split
import argparse
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from difflib import get_close_matches
from typing import cast

import numpy as np
from tqdm import tqdm

from danger_safe.audio.decode import AUDIO_SUFFIXES, SAMPLE_RATES, AudioError, read_channels, read_header
from danger_safe.audio.ffmpeg import SCHEMES, decode_url, is_stream_url
from danger_safe.audio.read_ahead import ReadAhead
from danger_safe.audio.stream import stream_microphone, stream_raw, stream_wav
from danger_safe.core.cores import available_cores
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite
from danger_safe.core.paths import is_url
from danger_safe.data.clips import list_sounds
from danger_safe.detection.detector import SENSITIVITIES, BuiltinDetector, Detector, load_builtin
from danger_safe.detection.events import Event, EventConfig, EventFinder
from danger_safe.detection.loading import open_detector
from danger_safe.detection.scorer import HOP, WINDOW, Listener
from danger_safe.detection.writers import FORMATS, Summary
from models.mnn_network import NetworkError

DANGER_HEARD = 4
STREAM = "-"
SHORT_SECONDS = 30  # heard by NumPy before the network is ready for MNN


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    if args.plot:
        check_overwrite(args.plot)
    inputs = list(find_recordings(args.input)) if args.input else [STREAM]
    if args.model is None:  # the built-in detector's, before its network is loaded
        check_categories((*args.only, *args.ignore), load_builtin())
    early = open_live(inputs[0], args) if isinstance(inputs[0], str) else None  # its sound goes on while we load
    low_latency = early is not None or is_short(args.input)
    opened = open_detector(
        args.model, args.checkpoint, args.device, args.jobs, low_latency, args.learnt, is_endless=early is not None
    )
    with (
        closing(early) if early else nullcontext(),
        opened as (engine, detector),
        Listener(engine, detector, args.window, args.hop) as listener,
    ):
        threshold = choose_threshold(args, detector)
        check_categories((*args.only, *args.ignore), detector)
        if not args.quiet:
            print(f"{detector.name}, threshold {threshold:.2f}, {engine.name}", file=sys.stderr)
        answers = FORMATS[args.format]()
        failures, unheard, dangers = 0, 0, 0
        for recording in inputs:
            summary = Summary(str(recording), threshold)
            live, early = early, None
            try:
                hear(recording, args, listener, summary, answers, live)
                why = summary.broke_off
            except (AudioError, NetworkError) as error:
                why = str(error)
            if why:
                failures += 1
                cli.warn(f"{'the stream on stdin' if recording == STREAM else recording} {why}")
            if not summary.seconds:
                unheard += 1
                continue
            answers.done(summary)  # what was heard before it broke off, too
            dangers += bool(summary.events)
    if unheard == len(inputs):
        raise UserError("nothing could be read" if unheard > 1 else "it could not be read")
    if dangers and args.fail_on_danger:
        return DANGER_HEARD
    return cli.SOME_FAILED if failures else cli.DONE


def is_short(recordings: list[str]) -> bool:
    """Whether the input is one file that is heard sooner than a network is made ready."""
    if len(recordings) != 1 or recordings[0] == STREAM or not Path(recordings[0]).is_file():
        return False
    try:
        frames, rate = read_header(Path(recordings[0]))
    except AudioError:
        return False
    return frames / rate <= SHORT_SECONDS


def choose_threshold(args, detector: Detector) -> float:
    """The threshold that was asked for, in one of three ways; by default the detector's own."""
    if args.sensitivity:
        assert isinstance(detector, BuiltinDetector)  # the flag is refused beside --model
        return detector.threshold_of(args.sensitivity)
    most = args.max_false_alarms_per_hour
    if most is None:
        return detector.threshold if args.threshold is None else args.threshold
    if not detector.operating_points:
        raise UserError(
            f"--max-false-alarms-per-hour: {detector.name} states none; run measure_false_alarms.py where its sounds "
            f"are"
        )
    from danger_safe.evaluation.thresholds import threshold_for, too_little_sound  # scikit-learn takes a second to load

    point = threshold_for(detector.operating_points, most)
    found = f"about {point.false_alarms_per_hour:.0f} false alarms per hour, {point.danger_recall:.0%} of dangers"
    print(f"at threshold {point.threshold:.2f}: {found}, on recordings that it had not heard", file=sys.stderr)
    if too_little := too_little_sound(most, detector.measured_minutes):
        cli.warn(too_little)
    return point.threshold


def check_categories(asked: tuple[str, ...], detector: Detector) -> None:
    """Raises UserError for a category that the detector does not name, with the nearest that it does."""
    tagger = getattr(detector, "tagger", detector)
    known = getattr(tagger, "categories", None) or getattr(tagger, "names", ())
    for category in asked:
        if category not in known:
            nearest = get_close_matches(category, known, 3) or sorted(known)
            raise UserError(
                f"{detector.name} names no {category} (nearest: {', '.join(nearest) or 'it names nothing'})"
            )


def hear(recording: Path | str, args, listener: Listener, summary: Summary, answers, early: ReadAhead | None) -> None:
    """Listen to one recording; ``summary`` and ``answers`` learn what is heard, as it is heard. ``early`` is the sound
    of a live one that is read already.

    Raises AudioError where nothing could be heard; ``summary`` says when a recording breaks off later.
    """
    live = (early or open_live(recording, args)) if isinstance(recording, str) else None
    finder = EventFinder(EventConfig(summary.threshold, min_duration_s=args.min_duration), args.hop)
    pieces, seconds = (live, None) if live else open_file(Path(recording))
    overview = None
    if args.plot:
        from danger_safe.reports.timeline import Overview, draw_timeline  # matplotlib takes a second to load

        overview = Overview()
        pieces = overview.watch(pieces)

    quiet = bool(live) or args.quiet or not sys.stderr.isatty() or (args.format == "csv" and sys.stdout.isatty())
    teller = _Teller(args, listener.detector, summary, answers, live)
    try:
        with tqdm(
            total=seconds,
            desc=cli.one_line(str(recording)),
            unit="s",
            file=sys.stderr,
            leave=False,
            delay=1,
            disable=quiet,
        ) as bar:
            for window in listener.listen(pieces, bool(live)):
                summary.add(window)
                answers.window(summary, window, bool(live))
                teller.ended(finder.add(window))
                teller.goes_on(finder)
                if live and args.fail_on_danger and teller.is_danger:
                    break  # a stream may never end
                if overview:
                    overview.add_score(window)
                bar.update(min(round(window.end), seconds or round(window.end)) - bar.n)
    except KeyboardInterrupt:
        if not live:
            raise  # Ctrl+C is how a stream ends: what was heard is answered
    except AudioError as error:
        if not summary.seconds:
            raise
        summary.broke_off = str(error)
    finally:
        teller.ended(finder.finish())
        if live:
            live.close()
    if live and live.lost_s and not summary.broke_off:
        summary.broke_off = f"was heard but for {live.lost_s:.0f} s: this computer is too slow"
    if not summary.seconds:
        raise AudioError("has no samples")
    if overview:
        draw_timeline(args.plot, overview, summary)


class _Teller:
    """Names a recording's events and tells of those that were asked for; of live ones, as they begin and end."""

    def __init__(self, args, detector: Detector, summary: Summary, answers, live: ReadAhead | None):
        self._args, self._detector, self._summary, self._answers, self._live = args, detector, summary, answers, live
        self._has_begun = False  # the event that goes on was told

    @property
    def is_danger(self) -> bool:
        """Whether there is or was an event that was asked for."""
        return self._has_begun or bool(self._summary.events)

    def goes_on(self, finder: EventFinder) -> None:
        """Tell of an event that has just begun."""
        if not self._live or self._has_begun or (event := finder.open_event) is None:
            return
        if self._is_wanted(event):
            self._has_begun = True
            self._answers.begun(self._summary, event, self._ago(event.start))

    def ended(self, events: list[Event]) -> None:
        """Take events into account that are over."""
        for event in events:
            if self._is_wanted(event) or self._has_begun:  # what was said to begin ends
                self._summary.events.append(event)
                if self._live:
                    self._answers.ended(self._summary, event, self._ago(event.end))
            event.embedding = event.embedding[:0]  # a stream may have events for days
            self._has_begun = False

    def _ago(self, moment: float) -> float:
        """Seconds since a moment of a live recording."""
        assert self._live is not None  # only of a live recording is it told
        return time.monotonic() - self._live.arrival_time(moment)

    def _is_wanted(self, event: Event) -> bool:
        """Name the event, and say whether --only and --ignore let it through."""
        event.heard = self._detector.tags(event.embedding)
        category = event.heard[0][0] if event.heard else ""
        return category not in self._args.ignore and (not self._args.only or category in self._args.only)


def open_live(recording: str, args) -> ReadAhead:
    """A microphone's, stdin's or an address's sound, from now on."""
    if args.mic:
        return ReadAhead(stream_microphone(), can_wait=False)
    if recording != STREAM:
        stopped = threading.Event()
        return ReadAhead(decode_url(recording, stopped), stopped)
    # A thread that waits in Python's own buffer would keep Python from ending.
    stdin = cast(io.BufferedReader, sys.stdin.buffer).raw
    return ReadAhead(stream_raw(stdin, args.raw) if args.raw else stream_wav(stdin))


def open_file(recording: Path) -> tuple[Iterator[np.ndarray], int | None]:
    """Sound as it is read, and how many seconds the header promises."""
    try:
        frames, rate = read_header(recording)
        seconds = round(frames / rate) or None
    except AudioError:  # reading it says why
        seconds = None
    return read_channels(recording), seconds


def find_recordings(inputs: list[str]) -> Iterator[Path | str]:
    """Files as they are given, addresses, and the recordings in folders, by name. Raises UserError for a folder without
    any, and for an address that cannot be listened to."""
    for name in inputs:
        path = Path(name)
        if name == STREAM or is_stream_url(name):
            yield name
        elif is_url(name) and not path.exists():
            schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise UserError(
                f"{name}: no address that can be listened to ({schemes}): give a file, or send it to stdin (-)"
            )
        elif not os.path.isdir(path):  # not path.is_dir(), which raises where it may not look
            yield path
        elif found := list_sounds(path):  # with folders that cannot be looked into: those are named, too
            yield from (file for _, file in found)
        else:
            raise UserError(f"{path}: no recordings in it ({', '.join(AUDIO_SUFFIXES)})")


def is_live(recording: str) -> bool:
    """Whether an input comes as it is recorded: stdin, an address."""
    return recording == STREAM or is_stream_url(recording)


def parse(arguments: list[str]):
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("input", nargs="*", metavar="INPUT", help="recordings, folders, or - for a stream on stdin")
    add("--model", type=Path, default=None, metavar="FILE", help="your own *_model.skops (default: the built-in "
        "detector). A .joblib can run code when it is opened: only your own")  # fmt: skip
    add("--learnt", type=Path, default=None, metavar="FILE", help="the learnt.npz of listen.py: quiet about what your "
        "household called false alarms")  # fmt: skip
    add("--checkpoint", default=None, metavar="NAME|FILE", help="the model's network (default: what the model names)")
    add(
        "--threshold",
        type=cli.fraction,
        default=None,
        metavar="T",
        help="danger from this score on (default: the model's)",
    )
    add("--sensitivity", choices=SENSITIVITIES, default=None, help="of the built-in detector: low for few alarms, high "
        "to miss less (default: normal)")  # fmt: skip
    add("--max-false-alarms-per-hour", type=cli.number(0), default=None, metavar="N",
    help="instead of a threshold: how many are "
        "bearable in an hour of ordinary sound")  # fmt: skip
    add("--window", type=seconds, default=WINDOW, metavar="S", help="seconds that are judged at once")
    add("--hop", type=seconds, default=HOP, metavar="S", help="seconds from one window to the next")
    add("--min-duration", type=cli.number(0), default=0.0, metavar="S", help="seconds that an event must last")
    add("--format", choices=tuple(FORMATS), default="table", help="how to answer")
    add("--plot", type=Path, default=None, metavar="FILE", help="picture of one recording (.png)")
    add("--only", type=categories, default=(), metavar="A,B", help="tell only of these categories (default: of all)")
    add(
        "--ignore", type=categories, default=(), metavar="A,B", help="do not tell of these categories (default: of all)"
    )
    add("--fail-on-danger", action="store_true", help="exit status 4 when danger was heard, for scripts; a stream is "
        "left "
        "at the first danger")  # fmt: skip
    add("--raw", type=cli.whole_number(SAMPLE_RATES[0], SAMPLE_RATES[-1]), default=None, metavar="RATE",
    help="the stream is mono 16-bit PCM of so many "
        "Hz, without a header: that RATE is right and all of it came cannot be checked")  # fmt: skip
    add("--mic", action="store_true", help="listen to the microphone (needs the package sounddevice)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one")
    add("--jobs", type=cli.cores, default=available_cores(), metavar="N", help="processor cores to use")
    args = parser.parse_args(arguments)
    if bool(args.input) == args.mic:
        parser.error("give recordings, a folder, - for stdin, or --mic")
    if "" in args.input:
        parser.error("one of the inputs is empty: a shell variable that is not set?")
    if args.raw and args.input != [STREAM]:
        parser.error("--raw is for a stream on stdin: give - as the input")
    if sum(x is not None for x in (args.threshold, args.max_false_alarms_per_hour, args.sensitivity)) > 1:
        parser.error("give one of --threshold, --sensitivity and --max-false-alarms-per-hour")
    if args.learnt and args.model:
        parser.error("--learnt is for the built-in detector, not for a model of your own")
    if args.sensitivity and args.model:
        parser.error("--sensitivity is of the built-in detector: for your own model, give --threshold")
    if args.hop > args.window:
        parser.error("--hop must not be longer than --window: sound would be left out")
    if args.plot and (len(args.input) != 1 or Path(args.input[0]).is_dir() or is_live(args.input[0])):
        parser.error("--plot is for one recording")
    if args.plot and not args.plot.absolute().parent.is_dir():
        parser.error(f"--plot {args.plot}: there is no such folder")
    if args.plot and (
        args.plot.suffix != ".png" or args.plot.is_dir() or args.plot.resolve() == Path(args.input[0]).resolve()
    ):
        parser.error("--plot writes a .png, not over a folder or the recording")
    if args.format == "audacity" and not args.mic and (len(args.input) != 1 or Path(args.input[0]).is_dir()):
        parser.error("--format audacity is for one recording: a label track belongs to one")
    return args


def categories(text: str) -> tuple[str, ...]:
    """An argparse type: names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def seconds(text: str) -> float:
    """An argparse type: a length of at least 0.1 and at most 30 seconds."""
    value = float(text)
    if not 0.1 <= value <= 30:
        raise argparse.ArgumentTypeError("must be 0.1 to 30 seconds")
    return value


if __name__ == "__main__":
    cli.run(main)
