"""Errors that a user can mend."""


class DamagedArchiveError(ValueError):
    """An archive whose bytes are not those that were published; fetching it again may help."""
