"""Errors that a user can correct: scripts print them as one line."""


class UserError(ValueError):
    """Says what was received, what was expected and what to do. Other exceptions are bugs."""


class DamagedArchiveError(UserError):
    """A truncated or altered archive; downloading it again may help."""
