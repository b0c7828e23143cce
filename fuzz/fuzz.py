"""Fuzz every reader of files: a malformed file must be accepted, or refused with a clear error.

    python fuzz/fuzz.py --minutes 1                # every target for a minute (make fuzz MINUTES=1)
    python fuzz/fuzz.py audio table --minutes 10
    python fuzz/fuzz.py table --file fuzz/found/table-crash-…      # reproduce a finding

Any exception except UserError and AudioError, more than 25 seconds, or more than 2 GB of memory is a finding. The exit
status is then 1, and the file is in fuzz/found/. Inputs that reach new code are kept in fuzz/corpus/ for the next run.
Needs Atheris (requirements/fuzz.txt), on Linux or perhaps macOS.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TIMEOUT_S = 25  # for one file
MAX_MEMORY_MB = 2_048
sys.path[:0] = [str(ROOT), str(HERE)]

NAMES = ("audio", "manifest", "table", "checkpoint", "detector", "journal")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=1.0, help="time for each target")
    parser.add_argument("--file", type=Path, default=None, help="only run the target on this file")
    parser.add_argument("--libfuzzer", nargs=argparse.REMAINDER, default=None, help=argparse.SUPPRESS)  # its flags
    args = parser.parse_args()
    targets = args.targets or NAMES
    if unknown := set(targets) - set(NAMES):
        parser.error(f"unknown target {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    if args.libfuzzer is not None:
        fuzz(targets[0], args.libfuzzer)
    if args.file is not None:
        return subprocess.call([sys.executable, __file__, targets[0], "--libfuzzer", str(args.file)])
    failed = [name for name in targets if run(name, args.minutes)]
    if failed:
        print(f"FINDINGS in {', '.join(failed)}: see above, and {HERE / 'found'}")
    return 1 if failed else 0


def run(name: str, minutes: float) -> bool:
    """Fuzz one target in a child process; return whether there was a finding."""
    corpus, found = HERE / "corpus" / name, HERE / "found"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    flags = [
        f"-max_total_time={max(1, round(minutes * 60))}", f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MAX_MEMORY_MB}",
        f"-artifact_prefix={found / name}-", "-print_final_stats=1", "-verbosity=1", "-max_len=20000",
    ]  # fmt: skip
    if (HERE / f"{name}.dict").is_file():
        flags.append(f"-dict={HERE / f'{name}.dict'}")
    before = set(found.iterdir())
    log = found / f"{name}.log"
    with open(log, "w", encoding="utf-8") as output:
        status = subprocess.call(
            [sys.executable, __file__, name, "--libfuzzer", str(corpus), *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    executions = next((line.split()[-1] for line in reversed(lines) if "number_of_executed_units" in line), "?")
    print(f"{name}: {executions} files tried in {minutes:g} minutes", flush=True)
    for file in sorted(set(found.iterdir()) - before - {log}):
        print(f"  FOUND {file}")
    if status:
        print("\n".join(f"  {line[:160]}" for line in lines[-40:] if not line.startswith(("#", "stat::"))))
    return status != 0


def fuzz(name: str, flags: list[str]) -> None:
    """Fuzz one target in this process; never returns."""
    import atheris

    limit = 2 * MAX_MEMORY_MB * 1024 * 1024  # a larger allocation raises MemoryError instead of exhausting the computer
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with atheris.instrument_imports(include=["danger_safe", "models", "tomllib", "wave"]):
        import targets  # with plain_files
    target = targets.TARGETS[name]
    corpus = next((Path(flag) for flag in flags if not flag.startswith("-")), None)
    if corpus is not None and corpus.is_dir():
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return target.mutate(data, max_size, seed, atheris.Mutate)

    atheris.Setup([sys.argv[0], *flags], target.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
