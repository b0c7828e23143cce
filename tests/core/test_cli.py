"""What all scripts have in common: encoding of the output, errors, flags."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

from danger_safe.core import cli
from danger_safe.core.atomic import atomic_path
from danger_safe.core.flags import training_flags

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py") if "cli.run(main)" in path.read_text(encoding="utf-8"))
ASCII = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}  # as limited as the code page of a Windows console


@pytest.mark.parametrize(
    "asked, answer", [({}, "Nguyễn – ±\n".encode()), ({"PYTHONIOENCODING": "ascii"}, rb"Nguy\u1ec5n")]
)
def test_output_to_a_pipe_is_utf8_by_default(asked, answer):
    code = "from danger_safe.core import cli; cli.run(lambda _: print('Nguy\\u1ec5n \\u2013 \\xb1') or 0, [])"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean | ASCII | asked, capture_output=True)
    assert done.returncode == 0 and done.stdout.replace(b"\r\n", b"\n").startswith(answer), done


def test_error_names_the_file_that_cannot_be_replaced(tmp_path, capsys):
    """For example a table that is open in Excel on Windows; users do not know the name of the temporary file."""
    table = tmp_path / "table.csv"
    table.mkdir()

    def write(_):
        with atomic_path(table) as part:
            part.write_text("x")
        return cli.DONE

    with pytest.raises(SystemExit, match="1"):
        cli.run(write, [])
    assert f"error: {table}: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.skipif(os.name == "nt", reason="limits on memory are POSIX")
def test_lack_of_memory_is_reported_with_the_libraries_messages():
    """OpenBLAS ends a process that gets no more memory; its message must not be lost."""
    code = "import os; from danger_safe.core import cli; cli.run(lambda _: os.write(2, b'a library') and 0, [])"
    for limit, warned, said in (("unlimited", False, False), ("700000", True, True)):
        command = ["bash", "-c", f"ulimit -v {limit}; exec '{sys.executable}' -c \"{code}\""]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("may use 717 MB" in done.stderr) == warned and ("a library" in done.stderr.splitlines()[-1:]) == said


def test_flags_are_not_abbreviated_and_the_nearest_is_named(capsys):
    """An abbreviation was taken for the flag, and a model was overwritten."""
    for wrong, answer in (
        ("--min-recal=0.9", "(did you mean --min-recall?)"),
        ("--zzz", "unrecognized arguments: --zzz\n"),
    ):
        with pytest.raises(SystemExit, match="2"):
            training_flags([wrong], "")
        assert answer in capsys.readouterr().err


def test_help_states_no_default_of_a_switch(capsys):
    with pytest.raises(SystemExit, match="0"):
        training_flags(["--help"], "")
    said = capsys.readouterr().out
    assert "(default: False)" not in said and "(default: 0.95)" in said


def test_flags_are_parsed_before_heavy_imports():
    """For all scripts and danger-safe, in one process in which importing slow modules fails."""
    code = """
import runpy, sys
HEAVY = {"torch", "sklearn", "scipy", "pandas", "librosa", "matplotlib", "pyarrow", "joblib", "dask", "MNN",
         "sounddevice"}
class Refuse:
    def find_spec(self, name, *_):
        assert name.partition(".")[0] not in HEAVY, f"{name} is loaded before the flags are read"
sys.meta_path.insert(0, Refuse())
sys.stderr = sys.stdout
for script in sys.argv[1:]:
    for flag, status in (("--help", 0), ("--version", 0), ("--nonsense", 2)):
        commands = [[script, flag]]
        if script == "danger_safe/__main__.py":
            commands = [[script, *words.split(), flag] for words in runpy.run_path(script)["COMMANDS"]]
        for command in commands:
            sys.argv = command
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as ended:
                assert ended.code == status, (command, ended.code)
            print("answered:", *command)
"""
    scripts = [*SCRIPTS, "danger_safe/__main__.py"]
    done = subprocess.run([sys.executable, "-c", code, *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("answered:") == 3 * 2 * len(SCRIPTS), (
        done.stdout[-500:],
        done.stderr,
    )
