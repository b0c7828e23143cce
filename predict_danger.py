"""Is there danger in a recording? When, how sure, and what did it sound like?

    python predict_danger.py recording.wav                      # at once, offline: the built-in detector
    python predict_danger.py recordings/ --format csv > windows.csv
    python predict_danger.py recording.wav --plot recording.png
    python predict_danger.py recording.wav --model logreg_model.skops
    python predict_danger.py rtsp://camera/stream               # or ffmpeg -i … -f wav - | python predict_danger.py -
    python predict_danger.py --mic

In:   WAV, FLAC, OGG, MP3 of any rate and length, folders of them, a WAV stream on stdin (-), a microphone; videos,
      other formats and addresses if ffmpeg is installed. All channels and tracks are processed
Out:  on the terminal, a verdict for each file and its events; --format csv: a row per window; json: a line per file;
      audacity: a label track. Events of a stream are printed as they begin and end. --plot draws waveform, spectrogram,
      score and events

Exit status 0: done; 3: some files could not be read, or not to their end; with --fail-on-danger, 4: danger was found. A
score at or above the threshold is danger. A recording is unknown if no danger was found and at least half of it sounds
like nothing in training. The score is a probability if dangers are as frequent as among the clips that it was
calibrated on; in most recordings they are rarer.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split
import argparse
from contextlib import ExitStack
from dataclasses import dataclass

from tqdm import tqdm

from danger_safe.audio.decode import SAMPLE_RATES, AudioError
from danger_safe.audio.read_ahead import ReadAhead
from danger_safe.core.commands import command_line
from danger_safe.core.cores import available_cores
from danger_safe.core.errors import UserError
from danger_safe.core.ownership import check_overwrite
from danger_safe.detection.detector import SENSITIVITIES, BuiltinDetector, Detector, load_builtin
from danger_safe.detection.event_reporter import EventReporter, check_categories
from danger_safe.detection.events import EventConfig, EventFinder
from danger_safe.detection.loading import open_detector
from danger_safe.detection.recordings import STREAM, find_recordings, is_live, is_short, open_file, open_live
from danger_safe.detection.scorer import HOP_S, WINDOW_S, WindowScorer
from danger_safe.detection.writers import FORMATS, Summary, Writer
from models.mnn_network import NetworkError

DANGER_FOUND = 4  # exit status with --fail-on-danger


@dataclass(frozen=True)
class Options:
    """How recordings are processed."""

    threshold: float
    min_duration_s: float = 0.0
    only: tuple[str, ...] = ()  # categories to report; empty for all
    ignore: tuple[str, ...] = ()  # categories not to report
    stop_at_danger: bool = False  # leave a live recording at its first danger
    plot: Path | None = None
    has_progress_bar: bool = False


def main(arguments: list[str]) -> int:
    args = parse(arguments)

    # Check everything that can be checked before the network is loaded.
    if args.plot:
        check_overwrite(args.plot)
    recordings = find_recordings(args.input) if args.input else [STREAM]
    if args.model is None:
        check_categories((*args.only, *args.ignore), load_builtin())

    with ExitStack() as stack:
        # Start to read a live recording now: its sound does not wait for the network.
        live = None
        if isinstance(recordings[0], str):
            live = open_live(recordings[0], args.mic, args.raw)
            stack.callback(live.close)

        # Load the network and the detector.
        low_latency, is_endless = live is not None or is_short(args.input), live is not None
        opened = open_detector(
            args.model, args.checkpoint, args.device, args.jobs, low_latency, args.learnt, is_endless
        )
        engine, detector = stack.enter_context(opened)
        scorer = stack.enter_context(WindowScorer(engine, detector, args.window, args.hop))
        threshold = choose_threshold(detector, args.threshold, args.sensitivity, args.max_false_alarms_per_hour)
        check_categories((*args.only, *args.ignore), detector)
        if not args.quiet:
            print(f"{detector.name}, threshold {threshold:.2f}, {engine.name}", file=sys.stderr)

        # Process the recordings one by one.
        is_mixed = args.format == "csv" and sys.stdout.isatty()  # rows would tear the progress bar
        has_bar = not args.quiet and sys.stderr.isatty() and not is_mixed
        options = Options(threshold, args.min_duration, args.only, args.ignore, args.fail_on_danger, args.plot, has_bar)
        writer = FORMATS[args.format]()
        failed, unread, dangers = 0, 0, 0
        for recording in recordings:
            if isinstance(recording, str) and live is None:
                live = open_live(recording, args.mic, args.raw)
            summary = process(recording, live, options, scorer, writer)
            live = None
            if summary.failure:
                failed += 1
                cli.warn(f"{'the stream on stdin' if recording == STREAM else recording} {summary.failure}")
            if summary.seconds:
                writer.on_recording_end(summary)
                dangers += bool(summary.events)
            else:
                unread += 1

    if unread == len(recordings):
        raise UserError("nothing could be read" if unread > 1 else "it could not be read")
    if dangers and args.fail_on_danger:
        return DANGER_FOUND
    return cli.SOME_FAILED if failed else cli.DONE


def process(
    recording: Path | str, live: ReadAhead | None, options: Options, scorer: WindowScorer, writer: Writer
) -> Summary:
    """Score a recording window by window and report its events.

    Args:
        recording: A file, or a live input as it was given on the command line.
        live: The source of the live input; it is closed at the end.
        options: Threshold, categories and the like.
        scorer: Scores the windows.
        writer: Prints windows, and the events of a live recording, as soon as they are known.

    Returns:
        The summary. Its ``failure`` says why if the recording could not be read, or not to its end.
    """
    summary = Summary(str(recording), options.threshold)
    chunks, total_s = (live, None) if live else open_file(Path(recording))
    overview = None
    if options.plot:
        from danger_safe.reports.timeline import Overview, draw_timeline  # matplotlib takes a second to load

        overview = Overview()
        chunks = overview.watch(chunks)
    finder = EventFinder(EventConfig(options.threshold, min_duration_s=options.min_duration_s), scorer.hop_s)
    reporter = EventReporter(finder, scorer.detector, summary, writer, live, options.only, options.ignore)
    has_bar = options.has_progress_bar and live is None
    name = cli.one_line(str(recording))
    try:
        with tqdm(
            total=total_s, desc=name, unit="s", file=sys.stderr, leave=False, delay=1, disable=not has_bar
        ) as bar:
            for window in scorer.score_recording(chunks, live is not None):
                summary.add(window)
                writer.on_window(summary, window, live is not None)
                reporter.add(window)
                if live and options.stop_at_danger and reporter.has_danger:
                    break
                if overview:
                    overview.add_score(window)
                bar.update(min(round(window.end), total_s or round(window.end)) - bar.n)
    except KeyboardInterrupt:
        if not live:  # Ctrl+C is the normal end of a live recording
            raise
    except (AudioError, NetworkError) as error:
        summary.failure = str(error)
    finally:
        reporter.finish()
        if live:
            live.close()
    if not summary.seconds:
        summary.failure = summary.failure or "has no samples"
        return summary
    if live and live.lost_s and not summary.failure:
        summary.failure = f"was heard but for {live.lost_s:.0f} s: this computer is too slow"
    if options.plot and overview:
        draw_timeline(options.plot, overview, summary)
    return summary


def choose_threshold(
    detector: Detector, threshold: float | None, sensitivity: str | None, max_false_alarms_per_hour: float | None
) -> float:
    """Return the threshold that was asked for in one of three ways; by default the detector's own."""
    if sensitivity:
        assert isinstance(detector, BuiltinDetector)  # parse refuses the flag together with --model
        return detector.threshold_of(sensitivity)
    if max_false_alarms_per_hour is None:
        return detector.threshold if threshold is None else threshold
    if not detector.operating_points:
        raise UserError(f"--max-false-alarms-per-hour: {detector.name} has none; run {command_line('measure')} first")
    from danger_safe.evaluation.thresholds import threshold_for, too_little_sound  # scikit-learn takes a second to load

    point = threshold_for(detector.operating_points, max_false_alarms_per_hour)
    rates = f"about {point.false_alarms_per_hour:.0f} false alarms per hour, {point.danger_recall:.0%} of dangers"
    print(f"at threshold {point.threshold:.2f}: {rates}, on recordings that it had not heard", file=sys.stderr)
    if warning := too_little_sound(max_false_alarms_per_hour, detector.measured_minutes):
        cli.warn(warning)
    return point.threshold


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("input", nargs="*", metavar="INPUT", help="recordings, folders, or - for a stream on stdin")
    add(
        "--model",
        type=Path,
        metavar="FILE",
        help="your own *_model.skops (default: the built-in detector). A .joblib can run code when it is opened: only "
        "your own",
    )
    add(
        "--learnt",
        type=Path,
        metavar="FILE",
        help="the learnt.npz of listen.py: quiet about what your household called false alarms",
    )
    add("--checkpoint", metavar="NAME|FILE", help="the model's network (default: what the model names)")
    add("--threshold", type=cli.fraction, metavar="T",
        help="score at or above which a window is danger (default: the model's)")  # fmt: skip
    add(
        "--sensitivity",
        choices=SENSITIVITIES,
        help="of the built-in detector: low for few alarms, high to miss less (default: normal)",
    )
    add("--max-false-alarms-per-hour", type=cli.number(0), metavar="N",
        help="highest acceptable rate; sets the threshold")  # fmt: skip
    add("--window", type=seconds, default=WINDOW_S, metavar="S", help="window length in seconds")
    add("--hop", type=seconds, default=HOP_S, metavar="S", help="seconds from one window to the next")
    add("--min-duration", type=cli.number(0), default=0.0, metavar="S", help="seconds that an event must last")
    add("--format", choices=tuple(FORMATS), default="table", help="output format")
    add("--plot", type=Path, metavar="FILE", help="picture of one recording (.png)")
    add("--only", type=names, metavar="A,B", help="report only these categories (default: all)")
    add("--ignore", type=names, metavar="A,B", help="do not report these categories (default: none)")
    add(
        "--fail-on-danger",
        action="store_true",
        help="exit status 4 when danger was heard, for scripts; a stream is left at the first danger",
    )
    add(
        "--raw",
        type=cli.whole_number(SAMPLE_RATES[0], SAMPLE_RATES[-1]),
        metavar="RATE",
        help="the stream is headerless mono 16-bit PCM at RATE Hz (neither rate nor end can be checked)",
    )
    add("--mic", action="store_true", help="listen to the microphone (needs the package sounddevice)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one")
    add("--jobs", type=cli.cores, default=available_cores(), metavar="N", help="processor cores to use")
    args = parser.parse_args(arguments)
    args.only, args.ignore = args.only or (), args.ignore or ()
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
        given = len(args.input) if len(args.input) > 1 else "a folder or a stream"
        parser.error(f"--plot takes one recording, not {given}")
    if args.plot and not args.plot.absolute().parent.is_dir():
        parser.error(f"--plot {args.plot}: there is no such folder")
    if args.plot and (
        args.plot.suffix != ".png" or args.plot.is_dir() or args.plot.resolve() == Path(args.input[0]).resolve()
    ):
        parser.error("--plot writes a .png, not over a folder or the recording")
    if args.format == "audacity" and not args.mic and (len(args.input) != 1 or Path(args.input[0]).is_dir()):
        parser.error("--format audacity is for one recording: a label track belongs to one")
    return args


def names(text: str) -> tuple[str, ...]:
    """Parse names with commas between them, for argparse."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def seconds(text: str) -> float:
    """Parse a length of at least 0.1 and at most 30 seconds, for argparse."""
    value = float(text)
    if not 0.1 <= value <= 30:
        raise argparse.ArgumentTypeError("must be 0.1 to 30 seconds")
    return value


if __name__ == "__main__":
    cli.run(main)
