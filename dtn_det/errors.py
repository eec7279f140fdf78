"""Errors of what a user brought, told apart from what is wrong with the program."""


class InputError(ValueError):
    """A data file or a setting that does not fit; the message says what to do, and needs no traceback."""
