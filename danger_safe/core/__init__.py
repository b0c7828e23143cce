"""What every other package builds on: errors, the command line, atomic files, downloads, paths.

It imports nothing else of the project.
"""
