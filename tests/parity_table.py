"""The figures that parity tests achieve, collected over a run, and the table of docs/parity.md made of them.

A plugin of pytest. A test asks for the fixture `figures` and states every error that it measured together with its
tolerance. `pytest tests/parity -m "" --parity-table docs/parity.md` then rewrites the table between the two markers
of that page, one row per stage and variant with the figure that came closest to its tolerance.
"""

import dataclasses
import pathlib

import pytest

BEGIN, END = "<!-- parity table: begin -->", "<!-- parity table: end -->"
HEADER = "| stage | variant | achieved | tolerance | arrays |\n| --- | --- | --- | --- | --- |"


@dataclasses.dataclass(frozen=True)
class Figure:
    """One error and what it may be at most."""

    achieved: float
    tolerance: float

    @property
    def closeness(self) -> float:
        """1 where the error is all that is tolerated; more where it is not tolerated."""
        if not self.achieved <= self.tolerance:
            return float("inf")
        return self.achieved / self.tolerance if self.tolerance else 0.0


class Figures:
    """What the tests of this run measured, by (stage, variant)."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[Figure]] = {}

    def check(self, stage: str, variant: str, achieved: float, tolerance: float) -> None:
        """Record an error, and fail if it exceeds its tolerance or is not a number.

        Args:
            stage: what was compared, in words that the table shows, with the unit: "boxes, px".
            variant: folder of the golden vectors, or "" for what needs no network.
            achieved: the largest error of one array.
            tolerance: the largest that is allowed.
        """
        figure = Figure(float(achieved), float(tolerance))
        self._rows.setdefault((stage, variant), []).append(figure)
        if figure.closeness > 1:
            pytest.fail(f"{stage} {variant}: {figure.achieved:.3g} exceeds {figure.tolerance:.3g}")

    def table(self) -> str:
        """The rows in Markdown: in the order of the variants, then of the tests."""
        lines = [HEADER]
        for (stage, variant), figures in sorted(self._rows.items(), key=lambda row: row[0][1]):
            worst = max(figures, key=lambda figure: figure.closeness)
            cells = (stage, variant or "-", f"{worst.achieved:.2g}", f"{worst.tolerance:.2g}", str(len(figures)))
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def __bool__(self) -> bool:
        return bool(self._rows)


def parts_around(page: pathlib.Path) -> tuple[str, str]:
    """The text of `page` before and after the table.

    Raises:
        pytest.UsageError: the page is missing or has not one pair of markers.
    """
    text = page.read_text() if page.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise pytest.UsageError(f"--parity-table {page}: a page with one {BEGIN} and one {END} is needed")
    return text.split(BEGIN)[0], text.split(END)[1]


def _stages(text: str) -> set[str]:
    """The stage and variant of every row of the table in `text`."""
    table = text.split(BEGIN)[-1].split(END)[0]
    return {", ".join(cell.strip() for cell in line.split("|")[1:3]) for line in table.splitlines() if "|" in line}


_FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-table", type=pathlib.Path, help="page whose table of parity figures is rewritten")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = Figures()
    page = config.getoption("parity_table")
    if page is not None:
        parts_around(page)


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Figures:
    """Where a parity test states its errors."""
    return request.config.stash[_FIGURES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    page, collected = config.getoption("parity_table"), config.stash[_FIGURES]
    if page is None:
        return
    terminalreporter.section("parity")
    if collected:
        terminalreporter.write_line(collected.table())
    if exitstatus != pytest.ExitCode.OK or not collected:
        terminalreporter.write_line(f"{page} is left as it is: a test failed, or nothing was measured")
        return
    before, after = parts_around(page)
    lost = sorted(_stages(page.read_text()) - _stages(collected.table()))
    if lost:
        terminalreporter.write_line(
            f"{page} is left as it is: {len(lost)} of its rows were not measured ({lost[0]}, ...); run all of "
            'tests/parity with -m "", or remove from the page what is measured no more'
        )
        return
    page.write_text(f"{before}{BEGIN}\n{collected.table()}\n{END}{after}")
    terminalreporter.write_line(f"written to {page}")
