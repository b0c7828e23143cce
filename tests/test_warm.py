"""A script in a fork of the warm process is what it is in a process of its own."""

import subprocess
import sys

import pytest
from helpers import PATIENCE_S, ROOT, warm_process

SCRIPT = """
import atexit, os, signal, sys, threading, time
atexit.register(print, "at exit")
assert "danger_safe" not in sys.modules and not signal.getsignal(signal.SIGTERM)
print(sys.stdin.read(), sys.argv, sys.orig_argv, sys.path[0], os.getcwd(), os.environ["WORD"], __name__, __file__)
print("to stderr", file=sys.stderr)
threading.Thread(target=lambda: time.sleep(0.1) or print("the thread ended")).start()
how = sys.argv[1]
if how == "killed":
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
if how == "raises":
    raise ValueError("wrong")
if how != "returns":
    sys.exit({"status": 7, "words": "some words", "none": None, "large": 259}[how])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere scripts are not forked")
def test_forks_are_and_end_as_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    env = {"PATH": "/usr/bin", "WORD": "đêm"}
    for how in ("returns", "status", "words", "none", "large", "raises", "killed"):
        command = [sys.executable, str(script), how, "--flag"]
        fork = warm_process().run(command, tmp_path, env, b"content", PATIENCE_S)
        own = subprocess.run(command, cwd=tmp_path, env=env, input=b"content", capture_output=True)
        assert (fork.returncode, fork.stdout) == (own.returncode, own.stdout), how
        if how == "raises":
            assert [done.stderr.splitlines()[-1] for done in (fork, own)] == [b"ValueError: wrong"] * 2
        else:
            assert fork.stderr == own.stderr, how
    assert not warm_process().suits(env | {"PYTHONPATH": str(ROOT)}) and warm_process().suits(warm_process()._env)
