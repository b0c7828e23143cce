"""How models/compact.pth is made: a small network learns to answer as mn04 does (``python -m tools.distil --help``)."""
