"""Rounds turn by turn between systems, so that a slow moment of the machine hits them all."""

import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import psutil

from bench.asks import WrongAnswerError
from bench.contenders import Server, is_installed
from bench.results import Measurement, Results, Sample
from bench.running import Served
from bench.workloads import Workload, is_right
from bench.wrk import LoadFailedError

WARM_UP_S = 1.0
NOISE_WINDOW_S = 0.5
FAILURES = (LoadFailedError, WrongAnswerError, RuntimeError, OSError, subprocess.SubprocessError)


def measure(workload: Workload, peers: tuple[str, ...], results: Results, say: Callable[[str], None]) -> None:
    """Measure a workload and add it to the results; what fails is told there, and the rest goes on."""
    if workload.needs and not is_installed(workload.needs):
        results.failed[workload.key] = f"{workload.needs} is not installed: make bench-peers"
        return
    for group, servers in workload.groups(peers):
        say(f"{workload.title}: {', '.join(servers)}")
        try:
            results.measurements.append(_group(workload, group, servers, results))
        except FAILURES as error:
            results.failed[f"{workload.key} {group}".strip()] = str(error)


def _group(workload: Workload, group: str, servers: Mapping[str, Server], results: Results) -> Measurement:
    load_before = os.getloadavg()[0]
    others = psutil.cpu_percent(interval=NOISE_WINDOW_S)
    rounds: dict[str, list[Sample]] = {system: [] for system in servers}
    with ExitStack() as stack:
        served: dict[Server, Served] = {}
        for system, server in servers.items():
            if server not in served:
                served[server] = stack.enter_context(server.serve(workload.ask_of(system)))
        ports = {system: served[server].port for system, server in servers.items()}
        for system, port in ports.items():
            workload.load_of(system)(workload.ask_of(system), port, WARM_UP_S)
        order = list(ports)
        for _ in range(results.rounds):
            for system in order:
                sample = workload.load_of(system)(workload.ask_of(system), ports[system], results.seconds)
                rounds[system].append(sample)
            order = [*order[1:], order[0]]  # Nobody comes always after the same one.
        for system, port in ports.items():
            is_right(workload, system, port)
    return Measurement(workload.key, group, rounds, load_before, others)
