"""What a user may have meant by a word that is not known."""

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest of the known words, to put before a remedy: "did you mean 'x'? ", or ""."""
    words = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), words, n=1)
    return f"did you mean {words[close[0]]!r}? " if close else ""
