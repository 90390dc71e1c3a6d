"""What a person says of the cells of a result: another result each time."""

import dataclasses

from fsis_jax.errors import FsisError
from fsis_jax.interactive.state import Result, Verdict


def said(result: Result, row: int, verdict: Verdict | None, kind: str = "") -> Result:
    """With this said of an instance, instead of what was; what is right may be of another kind.

    Raises:
        FsisError: there is no such row.
    """
    check_number(row, len(result.found), "cell that was found")
    verdicts = {other: told for other, told in result.verdicts.items() if other != row}
    kinds = {other: told for other, told in result.kinds.items() if other != row}
    if verdict is not None:
        verdicts[row] = verdict
    if kind:
        kinds[row] = kind
    return dataclasses.replace(result, verdicts=verdicts, kinds=kinds)


def as_shown(result: Result, shown: Result, row: int) -> Result:
    """With an instance right, and of the kind that it is shown as, unless that is an unwanted one.

    Raises:
        FsisError: there is no such row.
    """
    right = said(result, row, "right")
    kind = shown.kind_of(row)
    return right if kind == right.kind_of(row) or not shown.wanted[row] else said(right, row, "right", kind)


def with_added_of(result: Result, number: int, kind: str) -> Result:
    """With another kind of an added cell.

    Raises:
        FsisError: there is no such number.
    """
    check_number(number, len(result.added), "added cell")
    added = [cell._replace(kind=kind) if at == number else cell for at, cell in enumerate(result.added)]
    return dataclasses.replace(result, added=tuple(added))


def without_added(result: Result, number: int) -> Result:
    """Without an added cell.

    Raises:
        FsisError: there is no such number.
    """
    check_number(number, len(result.added), "added cell")
    return dataclasses.replace(result, added=result.added[:number] + result.added[number + 1 :])


def check_number(number: int, count: int, what: str) -> None:
    """Raise FsisError unless a number, from 0 on, is of one of so many."""
    if not 0 <= number < count:
        raise FsisError(f"no {what} has the number {number}, there are {count} now: look again and choose one of them")
