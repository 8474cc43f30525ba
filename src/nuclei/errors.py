"""Errors that a user can mend; scripts print them as one line. Any other exception keeps its traceback."""


class UserError(ValueError):
    """What came, what was expected, what to do."""


class DamagedArchiveError(UserError):
    """An archive whose bytes are not those that were published; fetching it again may help."""
