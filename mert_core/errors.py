"""The one exception a user is meant to read."""


class MertError(Exception):
    """Bad input or a broken promise: says what was found, what was expected and what to do.

    The command line prints the message alone and exits with status 2; anything else that escapes is a
    defect and keeps its traceback.
    """
