"""Where the benchmarks run."""

import platform
from importlib.metadata import version
from pathlib import Path

import psutil

import salver
from bench.results import Machine

_PACKAGES = ("uvicorn", "uvloop", "httptools", "starlette", "fastapi", "pydantic", "msgspec")


def this_machine(peers: tuple[str, ...]) -> Machine:
    """Describe the machine and what is installed.

    Args:
        peers: Environments whose pinned requirements are named too.
    """
    versions = {"salver": salver.__version__} | {package: version(package) for package in _PACKAGES}
    for peer in peers:
        for line in (Path(__file__).parent / "peers" / f"{peer}.txt").read_text(encoding="ascii").splitlines():
            name, _, pinned = line.partition("==")
            versions[name] = pinned
    return Machine(
        cpu=_cpu(),
        cores=psutil.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions,
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
