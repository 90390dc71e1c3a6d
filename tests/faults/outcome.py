"""What a part of the campaign has found: the lines of its table."""

import collections
import dataclasses


@dataclasses.dataclass
class Tally:
    """Of one kind of fault."""

    what: str
    tried: int = 0
    survived: int = 0
    """Gone on to the same result, or read."""
    refused: int = 0
    """Told in one line, and where there is an older one that was taken."""
    failed: list[str] = dataclasses.field(default_factory=list)
    """What each failure was."""

    def count(self, outcome: str, told: str = "") -> None:
        """One more, of "survived", "refused" or "failed"."""
        self.tried += 1
        self.survived += outcome == "survived"
        self.refused += outcome == "refused"
        if outcome == "failed":
            self.failed.append(told)


def table(tallies: list[Tally]) -> str:
    """Markdown; below it each failure once."""
    lines = ["| what | tried | survived | refused | failed |", "|---|---|---|---|---|"]
    lines += [f"| {t.what} | {t.tried} | {t.survived} | {t.refused} | {len(t.failed)} |" for t in tallies]
    for tally in tallies:
        lines += [
            f"\n{tally.what}, {count} times:\n{told}" for told, count in collections.Counter(tally.failed).items()
        ]
    return "\n".join(lines)
