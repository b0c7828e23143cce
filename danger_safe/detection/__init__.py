"""Prediction: a recording's scores, its events and their beginnings, the detector, what is printed."""
