"""The exceptions that a user of the command line is meant to see."""


class FsisError(Exception):
    """Bad input. The message is one line: what is wrong, where (file, record, value), and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


class OutputError(FsisError):
    """A result cannot be written: no reason to go on with other images."""
