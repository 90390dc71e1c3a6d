"""The head of a result and its tables: printed, and saved as Markdown."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Sequence

import jax

from benchmarks.measure import Row, threads

PACKAGES = ("fsis_jax", "jax", "jaxlib", "flax", "numpy", "torch", "torchvision")


class Report:
    """Prints, and appends the same to a file of its own."""

    def __init__(self, folder: pathlib.Path, suite: str, quick: bool) -> None:
        now = datetime.datetime.now(datetime.UTC)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{now:%Y%m%d-%H%M%S}-{suite}{'-quick' if quick else ''}.md"
        self.add(head(f"Suite {suite}{', quick' if quick else ''}", now))

    def add(self, text: str) -> None:
        """A paragraph or a table."""
        print(text, end="\n\n", flush=True)
        with self.path.open("a") as file:
            file.write(text + "\n\n")


def head(title: str, now: datetime.datetime) -> str:
    """On what, with what and when the tables were made."""
    device = jax.devices()[0]
    lines = {
        "date": f"{now:%Y-%m-%d %H:%M} UTC",
        "commit": commit(),
        "device": f"{device.device_kind} ({device.platform}, {jax.local_device_count()} of them)",
        "processor": f"{processor()}, {threads()} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at first",
        "versions": ", ".join(versions()),
    }
    return "\n".join([f"# {title}", "", *(f"- {name}: {value}" for name, value in lines.items())])


def commit() -> str:
    """Of the tree that this file lies in."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    folder = pathlib.Path(__file__).parent
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """Its name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def versions() -> list[str]:
    """Of Python and of the packages that matter and are installed."""
    result = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            result.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


def table(rows: Sequence[Row]) -> str:
    """Markdown whose columns line up in a terminal; columns in the order in which rows first have them."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    numeric = [all(not isinstance(row.get(column, 0), str) for row in rows) for column in columns]

    def line(values: Sequence[str]) -> str:
        padded = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (width - 1) + (":" if right else "-")) for width, right in zip(widths, numeric, strict=True)]
    return "\n".join([line(columns), line(rule), *map(line, cells)])


def _cell(value: object) -> str:
    """Four digits that count."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.{max(0, 4 - len(str(int(abs(value)))))}f}"
    return f"{value:.1e}"
