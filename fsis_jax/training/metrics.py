"""Where a run's numbers go: `workdir/metrics.jsonl` and TensorBoard's event files, which get pictures and texts too."""

import contextlib
import json
import pathlib
import struct
import time
from collections.abc import Iterator, Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import text

from fsis_jax.io.atomic import write_failure


class MetricWriter:
    """Scalars by step. A resumed run drops the lines of steps that it is about to take again.

    Events are written at once, not by tensorboardX's thread: on a full disk that dies, and the training would then
    wait for it for ever.

    Raises:
        FsisError: a file cannot be written, here and in every method.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int) -> None:
        self._path = workdir / "metrics.jsonl"
        with self._disk_errors():
            if self._path.exists():
                kept = [line for line in self._path.read_text().splitlines(keepends=True) if _step(line) <= first_step]
                temporary = self._path.with_suffix(".tmp")
                temporary.write_text("".join(kept))
                temporary.replace(self._path)
            (workdir / "tensorboard").mkdir(parents=True, exist_ok=True)
            self._board = EventsWriter(str(workdir / "tensorboard" / "events"))
            self._file = self._path.open("a")
            if first_step:
                # Tells TensorBoard to forget what an interrupted run wrote of the steps from here on.
                self._board.write_event(Event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of JSON, and one TensorBoard scalar per value."""
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        with self._disk_errors():
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            self._board.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
            self._board.flush()

    def show(self, step: int, pictures: pathlib.Path) -> None:
        """The pictures of a folder (PNG) in TensorBoard."""
        shown = []
        with self._disk_errors():
            for path in sorted(pictures.glob("*.png")):
                data = path.read_bytes()
                width, height = struct.unpack(">II", data[16:24])  # where a PNG has them
                image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
                shown.append(Summary.Value(tag=f"overlays/{path.stem}", image=image))
            self._board.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=shown)))
            self._board.flush()

    def describe(self, name: str, content: str) -> None:
        """A text in TensorBoard, as it stands."""
        block = "\n".join(f"    {line}" for line in content.splitlines())  # code, in Markdown
        with self._disk_errors():
            self._board.write_event(Event(wall_time=time.time(), step=0, summary=text(name, block)))
            self._board.flush()

    def close(self) -> None:
        """Flush and close both files."""
        with self._disk_errors(), contextlib.closing(self._file):
            self._board.close()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_failure(self._path, error) from error


def _step(line: str) -> int:
    """The step of a line; one that a kill has cut short is dropped."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 62
