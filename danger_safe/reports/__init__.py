"""Pictures and the page of mistakes."""

import os

# Every picture is a file, made without a screen. An MPLBACKEND that a notebook has set, or an impossible one, would end
# a script as soon as matplotlib is imported, and this package is imported before it.
os.environ.pop("MPLBACKEND", None)
