"""What this machine has, unless someone declares otherwise."""

import contextlib
import os
from pathlib import Path

from salver.engine.base import CPU, GPU, MEMORY
from salver.schema.settings import inherited_environment


def detect(
    *, num_cpus: float | None = None, num_gpus: float | None = None, resources: dict[str, float] | None = None
) -> dict[str, float]:
    """Return the node's resources; arguments win over what is found.

    Args:
        num_cpus: CPUs to count with.
        num_gpus: GPUs to count with; declared ones need not exist.
        resources: Custom resources by name.
    """
    return {
        CPU: float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        if num_cpus is None
        else num_cpus,
        GPU: float(len(visible_gpus())) if num_gpus is None else num_gpus,
        MEMORY: _memory(),
        **(resources or {}),
    }


def _memory() -> float:
    """Return the bytes of memory that this machine, or the container around us, allows."""
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        # No such file, or "max".
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, float(int(Path(limit).read_text())))
    return memory


def visible_gpus() -> list[str]:
    """Return the ids of the NVIDIA GPUs this process may use."""
    chosen = inherited_environment().get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [each.strip() for each in chosen.split(",") if each.strip() and each.strip() != "-1"]
    found = [name.removeprefix("nvidia") for name in os.listdir("/dev") if name.startswith("nvidia")]
    return sorted((number for number in found if number.isdigit()), key=int)


def device_environment(gpus: list[int]) -> dict[str, str]:
    """Return the variables that show a process exactly these GPUs, given by index among the visible ones."""
    ids = visible_gpus()
    chosen = ",".join(ids[index] if index < len(ids) else str(index) for index in gpus)
    # Not ROCR_VISIBLE_DEVICES: it renumbers the devices that HIP_VISIBLE_DEVICES chooses from.
    return dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"), chosen)
