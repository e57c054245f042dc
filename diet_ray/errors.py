"""Errors a user can act on: each message names the key, file, column or row, and says what to do."""


class DietError(Exception):
    """Base of every error that is the input's or the configuration's fault, not a bug."""


class ConfigError(DietError):
    """A configuration key or value that is unknown or out of range."""


class DataError(DietError):
    """A log, block or file that is missing, malformed or inconsistent."""


class RunError(DietError):
    """A run directory that cannot be used: another config's, corrupt, or of another schema."""


class ResourceError(DietError):
    """The cluster is too small for the request, or cannot be joined; the message says what to change."""
