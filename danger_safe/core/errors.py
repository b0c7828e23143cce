"""The exception that becomes a one-line message and exit status 1 (``danger_safe.core.cli.run``)."""


class UserError(Exception):
    """An error that the user can fix. The message is the line that is printed: what is wrong and what to do."""
