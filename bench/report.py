"""Results against goals: lines for the terminal, and Markdown for docs/performance.md."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
from rich.table import Table

from bench.goals import GOALS, TWO, Goal
from bench.results import Figure, Measurement, Results, Sample
from bench.workloads import WORKLOADS

BEGIN = "<!-- figures: written by python -m bench report -->"
END = "<!-- end of figures -->"
NAMES = {"ray": "Ray Serve", "ray-tuned": "Ray Serve, tuned", "litserve": "LitServe", "bentoml": "BentoML"}
HEADS = ("measured", "figure", "against", "ratio (range)", "at least", "moonshot", "met")


@dataclass(frozen=True)
class Line:
    """A row of the table; `met` is "" where nothing is to be met."""

    measured: str
    figure: str
    against: str
    ratio: str
    at_least: str
    moonshot: str
    met: str

    def cells(self) -> tuple[str, ...]:
        """Return the cells in the order of `HEADS`."""
        return (self.measured, self.figure, self.against, self.ratio, self.at_least, self.moonshot, self.met)


def load(path: Path) -> Results:
    """Read results."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def lines(results: Results) -> list[Line]:
    """Return what was measured, beside what is to be reached."""
    compared = [line for goal in GOALS if (line := _compared(goal, results))]
    wanted = {(goal.workload, goal.against) for goal in GOALS}
    others = [
        _peer_line(found)
        for found in results.measurements
        if found.group and (found.workload, found.group) not in wanted
    ]
    return [*compared, *others, *(_figure_line(figure) for figure in results.figures)]


def ratios(numerator: list[Sample], denominator: list[Sample], metric: str, of: str = "") -> list[float]:
    """Return the ratio of each round."""
    pairs = zip(numerator, denominator, strict=True)
    return [getattr(ours, metric) / getattr(theirs, of or metric) for ours, theirs in pairs]


def group_of(results: Results, workload: str, group: str) -> Measurement | None:
    """Return the rounds of a workload with a peer, or without one."""
    return next((each for each in results.measurements if (each.workload, each.group) == (workload, group)), None)


def _compared(goal: Goal, results: Results) -> Line | None:
    found = group_of(results, goal.workload, goal.against if goal.against in NAMES else "")
    if found is None:
        return None
    ours, theirs = found.rounds[goal.system], found.rounds[goal.against]
    each = ratios(ours, theirs, goal.metric, goal.of)
    ratio = median(each)
    title = WORKLOADS[goal.workload].title + (", 2 replicas" if goal.system == TWO else "")
    title += "" if goal.metric == "rate" else f", {goal.metric.removesuffix('_us')}"
    against = NAMES.get(goal.against, goal.against)
    if goal.of:
        against = f"its own {goal.of.removesuffix('_us')}"
    return Line(
        title,
        _shown(ours, goal.metric),
        f"{against}: {_shown(theirs, goal.of or goal.metric)}",
        f"{ratio:.2f} × ({min(each):.2f}–{max(each):.2f})",
        _bound(goal, goal.at_least),
        _bound(goal, goal.moonshot),
        _met(goal, ratio),
    )


def _peer_line(found: Measurement) -> Line:
    ours, theirs = found.rounds["salver"], found.rounds[found.group]
    metric = "p50_us" if found.workload.endswith("_c1") else "rate"
    each = ratios(ours, theirs, metric)
    title = WORKLOADS[found.workload].title + ("" if metric == "rate" else ", p50")
    ratio = f"{median(each):.2f} × ({min(each):.2f}–{max(each):.2f})"
    return Line(title, _shown(ours, metric), f"{NAMES[found.group]}: {_shown(theirs, metric)}", ratio, "", "", "")


def _figure_line(figure: Figure) -> Line:
    digits = 2 if figure.unit == "s" or figure.unit.startswith("×") else 0
    middle = median(figure.values)
    spread = f" ({min(figure.values):.{digits}f}–{max(figure.values):.{digits}f})" if len(figure.values) > 1 else ""
    limit, met = "", ""
    if figure.limit is not None:
        limit, met = f"≤ {figure.limit:g} {figure.unit}", "yes" if middle <= figure.limit else "NO"
    return Line(figure.title, f"{middle:.{digits}f} {figure.unit}{spread}", "", "", limit, "", met)


def _shown(samples: list[Sample], metric: str) -> str:
    value = median(getattr(sample, metric) for sample in samples)
    return f"{value:,.0f}/s" if metric == "rate" else f"{value:,.0f} µs"


def _bound(goal: Goal, bound: float | None) -> str:
    return "" if bound is None else f"{'≤' if goal.lower_is_better else '≥'} {bound:g} ×"


def _met(goal: Goal, ratio: float) -> str:
    if goal.moonshot is not None and goal.meets(ratio, goal.moonshot):
        return "moonshot"
    return "yes" if goal.meets(ratio, goal.at_least) else "NO"


def noise(results: Results) -> str:
    """Say how quiet the machine was."""
    if not results.measurements:
        return "Nothing was measured in rounds."
    spreads = []
    for found in results.measurements:
        rates = [sample.rate for sample in next(iter(found.rounds.values()))]
        spreads.append((max(rates) - min(rates)) / median(rates))
    loads = [found.load_before for found in results.measurements]
    others = [found.others_cpu_percent for found in results.measurements]
    return (
        f"Noise: over {results.rounds} rounds the first system of a group varied by {median(spreads):.0%} (median; at "
        f"most {max(spreads):.0%}); load average before a group {min(loads):.1f}–{max(loads):.1f}; other processes "
        f"took {median(others):.0f} % of all cores (median; at most {max(others):.0f} %)."
    )


def where(results: Results) -> str:
    """Say where and how it was measured."""
    machine = results.machine
    return (
        f"{results.date}, {machine.cores} cores ({machine.cpu}), {machine.memory_gb:g} GB, {machine.kernel}, Python "
        f"{machine.python}; {results.rounds} rounds of {results.seconds:g} s. "
        + ", ".join(f"{name} {version}" for name, version in machine.versions.items())
        + "."
    )


def problems(results: Results) -> list[str]:
    """Return what could not be measured, and why, in a line each."""
    missing = [f"{name}: not installed: make bench-peers" for name in results.skipped]
    return missing + [f"{name}: {' '.join(why.split())}" for name, why in results.failed.items()]


def table(results: Results) -> Table:
    """Return the table for a terminal."""
    shown = Table(*HEADS, title="Salver")
    for line in lines(results):
        style = {"NO": "red", "moonshot": "green"}.get(line.met)
        shown.add_row(*line.cells(), style=style)
    return shown


def markdown(results: Results) -> str:
    """Return the table, where it was measured and how noisy it was."""
    rows = [HEADS, ("---",) * len(HEADS), *(line.cells() for line in lines(results))]
    text = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    parts = [text, where(results), noise(results)]
    if found := problems(results):
        parts.append("Not measured:\n\n" + "\n".join(f"- {problem}" for problem in found))
    return "\n\n".join(parts) + "\n"


def put_into(page: str, text: str) -> str:
    """Return a page with what stands between its two markers replaced.

    Raises:
        ValueError: It lacks a marker.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN!r} or {END!r}")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"
