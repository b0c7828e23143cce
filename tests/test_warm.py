"""A script behaves the same in a fork of the warm process as in a new process."""

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
def test_forks_behave_and_end_like_processes(tmp_path):
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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere scripts are not forked")
def test_network_is_forbidden_in_forks_as_in_processes(offline, tmp_path):
    script, env = tmp_path / "script.py", {"NO_NETWORK_LOG": tmp_path / "log"}
    script.write_text("import socket; socket.create_connection(('127.0.0.1', 9))")
    env = {name: str(value) for name, value in (offline | env).items()}
    assert warm_process().suits(warm_process()._env | env)
    done = warm_process().run([sys.executable, str(script)], tmp_path, env, b"", PATIENCE_S)
    assert done.returncode == 1 and b"the tests forbid the network" in done.stderr
    assert [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()] == ["start", "tried"]
