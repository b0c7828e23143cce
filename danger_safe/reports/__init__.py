"""Figures, and the page of mistakes."""

import os

# All figures are files. An MPLBACKEND set by a notebook, or an invalid one, would end a script as soon as it imports
# matplotlib, which happens after this package is imported.
os.environ.pop("MPLBACKEND", None)
