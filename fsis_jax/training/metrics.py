"""Where a run's numbers go: `workdir/metrics.jsonl`, TensorBoard event files, and the progress bar."""

import json
import pathlib
from collections.abc import Mapping

from tensorboardX import SummaryWriter


class MetricWriter:
    """Scalars by step. A resumed run drops the lines of steps that it is about to take again."""

    def __init__(self, workdir: pathlib.Path, *, first_step: int) -> None:
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines(keepends=True) if _step(line) <= first_step]
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text("".join(kept))
            temporary.replace(self._path)
        self._file = self._path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1 if first_step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of JSON, and one TensorBoard scalar per value."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._board.close()


def _step(line: str) -> int:
    """The step of a line; one that a kill has cut short is dropped."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 62
