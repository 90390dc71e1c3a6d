"""What a run tells while it trains: the progress bar, and how fast it is without what is no training."""

import contextlib
import io
import sys
import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm


class Progress:
    """A bar of steps on the standard error. Its rate and the time that it says is left are of steps alone.

    Args:
        steps: of the whole run.
        first: steps that are taken already.
        canvases: (height, width) that batches may have; a step is compiled for each when it is first seen.
        shown: False keeps all to itself.
    """

    def __init__(self, steps: int, *, first: int, canvases: Sequence[tuple[int, int]], shown: bool = True) -> None:
        self._shown = (shown and sys.stderr) or io.StringIO()  # a program with a window has none
        every = 1 if self._shown.isatty() else 30
        self._bar = tqdm(total=steps, initial=first, unit="step", file=self._shown, mininterval=every)
        self._canvases = tuple(map(tuple, canvases))
        self._compiled: set[tuple[int, ...]] = set()
        self._measured_at, self._measured = time.monotonic(), first

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def say(self, text: str) -> None:
        """A line above the bar."""
        tqdm.write(text, file=self._shown)

    def update(self) -> None:
        """A step was taken."""
        self._bar.update()

    def show_loss(self, loss: float) -> None:
        """Beside the bar."""
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def steps_per_second(self, step: int) -> float:
        """Since it was last asked, at this step."""
        now = time.monotonic()
        rate = (step - self._measured) / max(now - self._measured_at, 1e-9)
        self._measured_at, self._measured = now, step
        return rate

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time within counts neither in the rate nor in the time that is left."""
        began = time.monotonic()
        yield
        taken = time.monotonic() - began
        self._measured_at += taken
        self._bar.start_t += taken
        self._bar.last_print_t += taken

    @contextlib.contextmanager
    def stepping(self, canvas: tuple[int, ...]) -> Iterator[bool]:
        """Around the call of a step: the first one of a canvas compiles it, which is told and not counted.

        Yields:
            Whether it does.
        """
        if canvas in self._compiled:
            yield False
            return
        self._compiled.add(canvas)
        height, width = canvas
        number = f"{len(self._compiled)} of {len(self._canvases)}"
        self.say(f"compiling the step for the canvas {height}x{width} ({number}), once; later starts read it from disk")
        began = time.monotonic()
        with self.paused():
            yield True
        self.say(f"compiled in {time.monotonic() - began:.0f} s")
