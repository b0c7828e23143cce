"""Steps 3 and 4: out-of-fold scores, thresholds, calibration, intervals, false alarms."""
