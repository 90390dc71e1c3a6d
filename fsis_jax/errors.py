"""The exceptions that a user of the command line is meant to see."""


class FsisError(Exception):
    """Bad input. The message is one line: what is wrong, where (file, record, value), and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def printable(text: str) -> str:
    """Text that may be a stranger's (names of files, channels, categories) for a line of a terminal.

    What is no printable character is written as its escape: line ends, escape sequences, marks that turn the direction
    of writing, bytes that are no text.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class OutputError(FsisError):
    """A result cannot be written: no reason to go on with other images."""
