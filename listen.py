"""Listen to cameras and microphones day and night, and raise an alarm where there is danger.

    python listen.py --init                  # writes listen.toml, an example with every setting explained
    python listen.py                         # listens to what listen.toml names
    python listen.py --config kitchen.toml
    python listen.py --learn                 # learns from the verdicts given on the page and says what that changes
    python listen.py --forget                # goes back to the detector as it was shipped

In:   listen.toml: sources (RTSP or HTTP addresses, microphones, files, stdin), when an event is an alarm, recipients
Out:  alarms by MQTT (Home Assistant finds its sensors by itself), to webhooks and commands, and on the terminal;
      every event is a line of events.jsonl

Ctrl+C or SIGTERM ends it: all events are logged, and the recipients are notified that the service is offline.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not add this folder

from danger_safe.core import cli  # first: names the missing package, if one is

# isort: split
import argparse
import os
import signal

from danger_safe.core.atomic import atomic_write_text
from danger_safe.core.commands import command_line
from danger_safe.core.errors import UserError


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    # NumPy and others take half a second to import: wrong flags are reported before that.
    from danger_safe.detection.detector import BuiltinDetector, load_builtin
    from danger_safe.detection.loading import open_detector
    from danger_safe.detection.scorer import HOP_S, WINDOW_S, WindowScorer
    from danger_safe.live.config import EXAMPLE, read_config
    from danger_safe.live.learning import Learner, forget
    from danger_safe.live.service import Service, check_config, say

    if args.init:
        if os.path.lexists(args.config):
            raise UserError(f"{args.config} is there already: --init overwrites nothing")
        atomic_write_text(args.config, EXAMPLE.read_text(encoding="utf-8"))
        print(f"{args.config} written: name your sources in it, then run {command_line('listen')}")
        return cli.DONE
    config = read_config(args.config)
    folder = Path(config.log.file).absolute().parent
    if args.forget:
        print(forget(folder))
        return cli.DONE
    if args.learn:
        with (
            open_detector(device="cpu", cores=1) as (engine, detector),
            WindowScorer(engine, detector, WINDOW_S, HOP_S) as scorer,
        ):
            assert isinstance(detector, BuiltinDetector)
            learner = Learner(folder, detector, scorer)
            if learner.learn(print) is detector:
                print("nothing is learnt: there are no verdicts to learn from")
            learner.save()
        return cli.DONE
    check_config(config, load_builtin().categories)  # before the network is converted, which may take a minute
    # One process for the network, which takes the windows of all sources together; each further one needs 60 MB.
    with open_detector(device="cpu", cores=1) as (engine, detector):
        assert isinstance(detector, BuiltinDetector)
        service = Service(config, engine, detector)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: service.stop())
        say(f"listening to {', '.join(source.name for source in service.sources)}; {engine.name}")
        service.run()
        say("ended")
    return cli.DONE


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.new_parser(__doc__)
    add = parser.add_argument
    add("--config", type=Path, default=Path("listen.toml"), metavar="FILE", help="what to listen to, and whom to tell")
    add("--init", action="store_true", help="write an example to --config, with every setting explained")
    learning = parser.add_mutually_exclusive_group()
    learning.add_argument(
        "--learn",
        action="store_true",
        help="learn from verdicts.jsonl, say what that changes, and end (while it listens, it does so by itself)",
    )
    learning.add_argument(
        "--forget", action="store_true", help="go back to the shipped detector; verdicts are put aside"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
