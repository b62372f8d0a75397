"""What a run of the benchmarks measured, as it is written to JSON."""

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One round on one system.

    Attributes:
        rate: Answers per second.
        p50_us: Median latency in microseconds.
        p99_us: 99th percentile of the latency in microseconds.
    """

    rate: float
    p50_us: float
    p99_us: float


class Measurement(msgspec.Struct):
    """Systems that did the same work turn by turn; `rounds[system][n]` of all systems belong together.

    Attributes:
        workload: Key of the workload.
        group: "" for the workload's own systems, otherwise the peer that ran beside them.
        load_before: The machine's one-minute load average before the systems were started.
        others_cpu_percent: CPU that other processes used then, of all cores.
    """

    workload: str
    group: str
    rounds: dict[str, list[Sample]]
    load_before: float
    others_cpu_percent: float


class Figure(msgspec.Struct):
    """Something measured by itself, several times.

    Attributes:
        values: One per run, in `unit`.
        limit: The goal: at most this; None for figures without one.
    """

    key: str
    title: str
    unit: str
    values: list[float]
    limit: float | None = None


class Machine(msgspec.Struct):
    """Where it was measured."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    versions: dict[str, str]


class Results(msgspec.Struct):
    """A whole run.

    Attributes:
        failed: Why there is no figure, by workload and system.
        skipped: Which peers were not there.
    """

    date: str
    machine: Machine
    rounds: int
    seconds: float
    measurements: list[Measurement] = []
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    skipped: list[str] = []
