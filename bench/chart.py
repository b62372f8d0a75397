"""The chart of docs/performance.md: each workload's rates as bars, in multiples of its baseline."""

from dataclasses import dataclass
from html import escape
from statistics import median

from bench.report import NAMES, group_of, ratios
from bench.results import Results, Sample
from bench.workloads import WORKLOADS, Workload

WIDTH, LEFT, RIGHT = 860, 190, 170
BAR, GAP, HEAD, TOP = 15, 5, 34, 62
COLOURS = {"salver": "#0f9d7a", "salver, 2 replicas": "#56c596"}
BASELINE, PEER = "#7a8594", "#d9a441"
_STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .title { font-size: 17px; font-weight: 600; }
  .work { font-weight: 600; }
  .quiet { fill: #57606a; font-size: 11px; }
  .ground { fill: #ffffff; stroke: #d0d7de; }
  .line { stroke: #8c959f; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9da7b3; }
    .ground { fill: #0d1117; stroke: #30363d; }
    .line { stroke: #6e7681; }
  }
"""


@dataclass(frozen=True)
class Bar:
    """A system's rate: itself, and as a multiple of the baseline's."""

    system: str
    rate: float
    ratio: float


def bars(results: Results, workload: Workload) -> list[Bar]:
    """Return a workload's bars; the first is the baseline, peers are compared in the rounds they took part in."""
    own = group_of(results, workload.key, "")
    groups = [found for peer in workload.peers if (found := group_of(results, workload.key, peer))]
    if own is None:
        return []
    alone = len(workload.systems) == 1
    if alone and not groups:
        return []
    first = next(iter(workload.systems))
    if alone:  # Without a bare system the first peer is the baseline.
        theirs = groups[0].rounds[groups[0].group]
        two = [Bar(groups[0].group, _rate(theirs), 1.0), _bar(first, groups[0].rounds[first], theirs)]
        rest = [(each.group, each.rounds[each.group], each.rounds[first]) for each in groups[1:]]
        return [*two, *(Bar(name, _rate(us), two[1].ratio * _ratio(us, ours)) for name, us, ours in rest)]
    shown = [_bar(system, rounds, own.rounds[first]) for system, rounds in own.rounds.items()]
    return [*shown, *(_bar(each.group, each.rounds[each.group], each.rounds[first]) for each in groups)]


def svg(results: Results) -> str:
    """Draw the chart."""
    parts: list[str] = []
    y = TOP
    for workload in WORKLOADS.values():
        found = bars(results, workload)
        if len(found) > 1:
            parts.append(_panel(workload.title, found, y))
            y += HEAD + len(found) * (BAR + GAP)
    height = y + 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    title = "Throughput in multiples of the baseline"
    return "\n".join(
        [
            f'{head} role="img" aria-label="{title}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
            f'<text class="title" x="20" y="30">{title}</text>',
            f'<text class="quiet" x="20" y="49">Longer is better. Each panel has its own scale; the dashed line is the '
            f"baseline, 1 ×. {results.machine.cores} cores, load generator on the same ones.</text>",
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(title: str, found: list[Bar], y: int) -> str:
    scale = (WIDTH - LEFT - RIGHT) / max(bar.ratio for bar in found)
    bottom = y + HEAD + len(found) * (BAR + GAP) - GAP
    parts = [f'<text class="work" x="20" y="{y + HEAD - 10}">{escape(title)}</text>']
    for number, bar in enumerate(found):
        top = y + HEAD + number * (BAR + GAP)
        length = max(1.5, bar.ratio * scale)
        colour = BASELINE if number == 0 else COLOURS.get(bar.system.partition(", 64")[0].partition(", 200")[0], PEER)
        name = escape(NAMES.get(bar.system, bar.system))
        parts.append(f'<text x="{LEFT - 10}" y="{top + 12}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3" fill="{colour}"/>')
        label = f"{_multiple(bar.ratio)} <tspan class='quiet'>{bar.rate:,.0f}/s</tspan>"
        parts.append(f'<text x="{LEFT + length + 8:.1f}" y="{top + 12}">{label}</text>')
    x = LEFT + scale
    parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{y + HEAD - 3}" y2="{bottom + 3}"/>')
    return "\n".join(parts)


def _multiple(ratio: float) -> str:
    return f"{ratio:.1f} ×" if ratio >= 10 else f"{ratio:.2f} ×" if ratio >= 0.1 else f"{ratio:.3f} ×"


def _bar(system: str, samples: list[Sample], baseline: list[Sample]) -> Bar:
    return Bar(system, _rate(samples), _ratio(samples, baseline))


def _rate(samples: list[Sample]) -> float:
    return median(sample.rate for sample in samples)


def _ratio(samples: list[Sample], baseline: list[Sample]) -> float:
    return median(ratios(samples, baseline, "rate"))
