"""What everything stands on: errors, the command line, whole files, downloads, paths. It imports nothing of the
project."""
