"""How models/compact.pth is trained: a small network learns to predict what mn04 does (``python -m tools.distil``)."""
