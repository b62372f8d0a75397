"""`python -m bench`: measure and print figures beside their goals. `python -m bench report FILE`: print them again."""

import argparse
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import msgspec
from rich.console import Console

from bench.chart import svg
from bench.contenders import PEERS, is_installed
from bench.machine import this_machine
from bench.payloads import payloads
from bench.replica_start import replica_start
from bench.report import load, markdown, noise, problems, put_into, table, where
from bench.results import Figure, Results
from bench.rounds import measure
from bench.startup import startup
from bench.workloads import WORKLOADS

PARTS: dict[str, Callable[[], list[Figure]]] = {
    "startup": startup,
    "replica_start": replica_start,
    "payloads": payloads,
}


def main() -> None:
    """Measure, or report what was measured."""
    # An exception, so that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.argv[1:2] == ["report"]:
        _report(sys.argv[2:])
    else:
        _measure(sys.argv[1:])


def _measure(arguments: list[str]) -> None:
    names = [*PARTS, *WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("work", nargs="*", metavar="WORK", help=f"all unless given; there are {', '.join(names)}")
    parser.add_argument("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it as SVG")
    options = parser.parse_args(arguments)
    work = options.work or names
    wanted = {"all": tuple(PEERS), "none": ()}.get(options.peers, tuple(options.peers.split(",")))
    for kind, given, there in (("benchmark", work, names), ("peer", wanted, list(PEERS))):
        if unknown := [name for name in given if name not in there]:
            parser.error(f"no such {kind}: {', '.join(unknown)}; there are: {', '.join(there)}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    results = _empty(wanted, options.rounds, options.seconds)
    for name in work:
        _add(name, wanted, results)
        if options.json:  # Each time, so that a run that is stopped keeps what it has measured.
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    if options.chart:
        options.chart.write_text(svg(results), encoding="utf-8")
    _show(results)
    sys.exit(1 if results.failed else 0)


def _empty(wanted: tuple[str, ...], rounds: int, seconds: float) -> Results:
    needed = {environment for environment in (*map(PEERS.get, wanted), "grpc") if environment}
    there = tuple(sorted(environment for environment in needed if is_installed(environment)))
    results = Results(str(date.today()), this_machine(there), rounds, seconds)
    results.skipped = [peer for peer in wanted if not is_installed(PEERS[peer])]
    return results


def _add(name: str, wanted: tuple[str, ...], results: Results) -> None:
    say = Console(stderr=True).print
    if name in PARTS:
        say(name)
        results.figures += PARTS[name]()
    else:
        measure(WORKLOADS[name], tuple(peer for peer in wanted if peer not in results.skipped), results, say)


def _show(results: Results) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table(results), where(results), noise(results), sep="\n", markup=False, highlight=False)
    for problem in problems(results):
        console.print(f"NOT MEASURED: {problem}", style="red", markup=False)


def _report(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench report", description="Print results as Markdown.")
    parser.add_argument("results", type=Path, help="what --json wrote")
    parser.add_argument("--page", type=Path, help="put the table between the markers of this page instead")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart as SVG")
    options = parser.parse_args(arguments)
    results = load(options.results)
    if options.chart:
        options.chart.write_text(svg(results), encoding="utf-8")
    if options.page:
        page = options.page.read_text(encoding="utf-8")
        options.page.write_text(put_into(page, markdown(results)), encoding="utf-8")
    else:
        print(markdown(results), end="")


if __name__ == "__main__":
    main()
