"""The report compares round by round, and says what is met, what failed and what was not there."""

import xml.etree.ElementTree as ElementTree

import pytest

from bench.chart import bars, svg
from bench.goals import GOALS
from bench.report import BEGIN, END, lines, markdown, put_into
from bench.results import Figure, Machine, Measurement, Results, Sample
from bench.workloads import WORKLOADS

MACHINE = Machine("CPU", 2, 8.0, "Linux 6", "3.11.7", {"salver": "0.1.0"})


def rounds(*rates: float, p50_us: float = 100.0, p99_us: float = 500.0) -> list[Sample]:
    return [Sample(rate, p50_us, p99_us) for rate in rates]


def run(*measurements: Measurement, figures: list[Figure] | None = None) -> Results:
    return Results("2026-01-01", MACHINE, 3, 4.0, list(measurements), figures or [])


def measured(workload: str, group: str = "", **systems: list[Sample]) -> Measurement:
    return Measurement(workload, group, {name.replace("_", "-"): each for name, each in systems.items()}, 0.5, 3.0)


def test_ratios_are_taken_within_each_round() -> None:
    # The second round was slow for both; the ratio of the medians would be 1.5.
    (line,) = lines(run(measured("noop", uvicorn=rounds(100, 10, 60), salver=rounds(90, 12, 120))))

    assert (line.ratio, line.figure, line.met) == ("1.20 × (0.90–2.00)", "90/s", "moonshot")


@pytest.mark.parametrize(("rate", "met"), [(79, "NO"), (81, "yes"), (121, "moonshot")])
def test_a_rate_has_to_reach_its_bound(rate: float, met: str) -> None:
    (line,) = lines(run(measured("noop", uvicorn=rounds(100), salver=rounds(rate))))

    assert line.met == met


@pytest.mark.parametrize(("p50_us", "met"), [(161, "NO"), (159, "yes"), (129, "moonshot")])
def test_a_latency_has_to_stay_below_its_bound(p50_us: float, met: str) -> None:
    p50, p99 = lines(run(measured("noop_c1", uvicorn=rounds(9), salver=rounds(9, p50_us=p50_us, p99_us=1e6))))

    assert p50.met == met
    assert p99.met == "NO"


def test_a_peer_is_compared_in_the_rounds_it_took_part_in() -> None:
    alone = measured("noop", uvicorn=rounds(100), salver=rounds(100))
    beside = measured("noop", "ray-tuned", uvicorn=rounds(50), salver=rounds(60), ray_tuned=rounds(10))
    _, ray = lines(run(alone, beside))

    assert (ray.against, ray.ratio, ray.met) == ("Ray Serve, tuned: 10/s", "6.00 × (6.00–6.00)", "yes")


def test_a_figure_is_held_against_its_limit() -> None:
    figures = [Figure("startup", "start", "s", [0.4, 0.7, 0.5], 0.6), Figure("memory", "memory", "MB", [101], 100)]
    start, memory = lines(run(figures=figures))

    assert (start.figure, start.at_least, start.met) == ("0.50 s (0.40–0.70)", "≤ 0.6 s", "yes")
    assert (memory.figure, memory.met) == ("101 MB", "NO")


def test_markdown_names_failures_and_missing_peers() -> None:
    results = run(measured("noop", uvicorn=rounds(100, 120, 110), salver=rounds(90, 90, 90)))
    results.failed["sse"] = "Non-2xx\nresponses"
    results.skipped.append("litserve")
    text = markdown(results)

    assert "- sse: Non-2xx responses" in text
    assert "- litserve: not installed: make bench-peers" in text
    assert "varied by 18%" in text


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    page = put_into(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new\n")

    assert put_into(page, "new\n") == page == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="lacks"):
        put_into("nothing", "new")


def test_goals_name_workloads_and_systems_that_exist() -> None:
    for goal in GOALS:
        workload = WORKLOADS[goal.workload]
        assert goal.system in workload.systems
        assert goal.against in {*workload.systems, *workload.peers}


def test_the_chart_has_a_bar_per_system_and_is_well_formed() -> None:
    results = run(
        measured("noop", uvicorn=rounds(100), salver=rounds(120)),
        measured("noop", "ray", uvicorn=rounds(50), salver=rounds(60), ray=rounds(1)),
        measured("chain", salver=rounds(10)),
        measured("chain", "ray-tuned", salver=rounds(8), ray_tuned=rounds(2)),
    )

    assert [bar.ratio for bar in bars(results, WORKLOADS["noop"])] == [1.0, 1.2, 0.02]
    assert [(bar.system, bar.ratio) for bar in bars(results, WORKLOADS["chain"])] == [("ray-tuned", 1), ("salver", 4)]
    drawn = ElementTree.fromstring(svg(results))
    assert len([each for each in drawn.iter() if each.tag.endswith("rect")]) == 1 + 3 + 2
