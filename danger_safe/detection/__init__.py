"""Detection: scores of windows, events and their onsets, detectors, model files, output formats."""
