"""Files that nobody in their right mind would write, made by the million: nothing but a clear refusal may come of them.

    python fuzz/fuzz.py --minutes 1                # every target so long, one after another (make fuzz MINUTES=1)
    python fuzz/fuzz.py audio table --minutes 10
    python fuzz/fuzz.py table --file fuzz/found/table-crash-…      # what was found, once more

Out:  exit status 0 where nothing was found; else 1, and the file that shows it, in fuzz/found/

Needs Atheris (requirements/fuzz.txt): Linux, perhaps macOS. The rule for every target: the file is used, or
refused with UserError or AudioError. Any other exception, 25 seconds, or 2 GB of memory, is a finding. What was
interesting is kept in fuzz/corpus/ and gone on from in the next run.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SLOWEST = 25  # seconds for one file
MAX_MEMORY_MB = 2_048  # MB
sys.path[:0] = [str(ROOT), str(HERE)]

NAMES = ("audio", "manifest", "table", "checkpoint", "detector", "journal")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--file", type=Path, default=None, help="try this one file on the target")
    parser.add_argument("--here", nargs=argparse.REMAINDER, default=None, help=argparse.SUPPRESS)  # libFuzzer's own
    args = parser.parse_args()
    targets = args.targets or NAMES
    if unknown := set(targets) - set(NAMES):
        parser.error(f"unknown target {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if args.here is not None:
        fuzz(targets[0], args.here)
    if args.file is not None:
        return subprocess.call([sys.executable, __file__, targets[0], "--here", str(args.file)])
    failed = [name for name in targets if run(name, args.minutes)]
    if failed:
        print(f"FOUND something in {', '.join(failed)}: see above, and {HERE / 'found'}")
    return 1 if failed else 0


def run(name: str, minutes: float) -> bool:
    """Fuzz one target in a process of its own; returns whether anything was found."""
    corpus, found = HERE / "corpus" / name, HERE / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    flags = [
        f"-max_total_time={max(1, round(minutes * 60))}", f"-timeout={SLOWEST}", f"-rss_limit_mb={MAX_MEMORY_MB}",
        f"-artifact_prefix={found / name}-", "-print_final_stats=1", "-verbosity=1", "-max_len=20000",
    ]  # fmt: skip
    if (HERE / f"{name}.dict").is_file():
        flags.append(f"-dict={HERE / f'{name}.dict'}")
    before = set(found.iterdir())
    log = found / f"{name}.log"
    with open(log, "w", encoding="utf-8") as output:
        status = subprocess.call(
            [sys.executable, __file__, name, "--here", str(corpus), *flags], stdout=output, stderr=subprocess.STDOUT
        )
    words = log.read_text(encoding="utf-8", errors="replace").splitlines()
    executions = next((line.split()[-1] for line in reversed(words) if "number_of_executed_units" in line), "?")
    print(f"{name}: {executions} files tried in {minutes:g} minutes", flush=True)
    for file in sorted(set(found.iterdir()) - before - {log}):
        print(f"  FOUND {file}")
    if status:
        print("\n".join(f"  {line[:160]}" for line in words[-40:] if not line.startswith(("#", "stat::"))))
    return status != 0


def fuzz(name: str, flags: list[str]) -> None:
    """In the process of one target: never returns."""
    import atheris

    limit = 2 * MAX_MEMORY_MB * 1024 * 1024  # what asks for more at once gets MemoryError, and the computer lives
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with atheris.instrument_imports(include=["danger_safe", "models", "tomllib", "wave"]):
        import targets  # and plain_files
    target = targets.TARGETS[name]
    corpus = next((Path(flag) for flag in flags if not flag.startswith("-")), None)
    if corpus is not None and corpus.is_dir():
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        return target.mutate(data, longest, seed, atheris.Mutate)

    atheris.Setup([sys.argv[0], *flags], target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
