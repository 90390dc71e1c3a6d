"""The one exception that a user of the command line is meant to see."""


class FsisError(Exception):
    """Bad input. The message is one line: what is wrong, where (file, record, value), and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """
