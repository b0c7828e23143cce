"""How a script fails: one line that says what and what to do, and an exit status (``danger_safe.core.cli.run``)."""


class UserError(Exception):
    """Something the user can put right. The message is the one line that is shown; exit status 1."""
