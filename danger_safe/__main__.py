"""The command danger-safe of an installed package: a subcommand for each script.

danger-safe predict recording.wav
danger-safe train rf --help
"""

import importlib
import sys
from importlib.metadata import version

from danger_safe.core import cli
from danger_safe.core.commands import COMMANDS, IS_INSTALLED


def main() -> None:
    """Run the script of the subcommand and exit with its status."""
    arguments = sys.argv[1:]
    package = "danger_safe.scripts." if IS_INSTALLED else ""
    for command, (script, _) in COMMANDS.items():
        words = command.split()
        if arguments[: len(words)] == words:
            sys.argv = [f"danger-safe {command}", *arguments[len(words) :]]
            cli.run(importlib.import_module(package + script).main)
    if arguments == ["--version"]:
        print(version("danger-safe"))
        sys.exit(cli.DONE)
    lines = [f"  danger-safe {command:<14} {description}" for command, (_, description) in COMMANDS.items()]
    is_help = arguments in (["--help"], ["-h"])
    print("\n".join(["One of these, each with --help:", "", *lines]), file=sys.stdout if is_help else sys.stderr)
    sys.exit(cli.DONE if is_help else 2)


if __name__ == "__main__":
    main()
