"""Write clips of quiet rooms (danger_safe/audio/room_tone.py) for a training of the network.

    python -m tools.quiet_rooms FOLDER

Clips go to FOLDER/room_tone_noise, for finetune_cnn14.py --dataset … FOLDER.
"""

from pathlib import Path

import soundfile

from danger_safe.audio.decode import SAMPLE_RATE
from danger_safe.audio.room_tone import CATEGORY, quiet_room
from danger_safe.core import cli


def main(arguments: list[str]) -> int:
    parser = cli.new_parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("--clips", type=cli.whole_number(1), default=200, metavar="N", help="how many")
    args = parser.parse_args(arguments)
    (args.folder / CATEGORY).mkdir(parents=True, exist_ok=True)
    for number in range(args.clips):
        file = args.folder / CATEGORY / f"quiet_room_{number:03d}.flac"
        soundfile.write(file, quiet_room(number), SAMPLE_RATE, subtype="PCM_24")
    print(f"Wrote {args.clips} clips to {args.folder / CATEGORY}")
    return cli.DONE


if __name__ == "__main__":
    cli.run(main)
