"""Run a script with a limit on file sizes in kilobytes: limited.py 100 predict_danger.py …. POSIX only."""

import resource
import runpy
import sys
from pathlib import Path

limit = int(sys.argv[1]) << 10
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
del sys.argv[:2]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
