"""Whether what is asked can ever fit. Pure."""

from collections.abc import Iterable, Sequence

from salver.controller.desired import Wish
from salver.schema.messages import NodeReport
from salver.schema.options import ActorOptions

CPU = "CPU"
GPU = "GPU"
MEMORY = "memory"

# Sums of decimal fractions like 0.1 must compare as people mean them.
_PRECISION = 4


def resources_of(options: ActorOptions) -> dict[str, float]:
    """Return what one replica needs, by resource name."""
    needed = {CPU: options.num_cpus, GPU: options.num_gpus, MEMORY: float(options.memory), **options.resources}
    return {name: amount for name, amount in needed.items() if amount > 0}


def shortage(wishes: Iterable[Wish], nodes: Sequence[NodeReport], *, strict_cpus: bool) -> str | None:
    """Return why replicas can never all run on these nodes, or None.

    Only what stays impossible when everything else is idle counts: what others use now may become free.
    """
    asked: dict[str, float] = {}
    for wish in wishes:
        for name, amount in resources_of(wish.spec.options.ray_actor_options).items():
            if name == CPU and not strict_cpus:
                continue
            asked[name] = round(asked.get(name, 0.0) + amount * wish.replicas, _PRECISION)
            on_each = [node.total.get(name, 0.0) for node in nodes]
            if asked[name] > sum(on_each):
                have = "there is" if sum(on_each) == 1 else "there are"
                return _sentence(
                    wish, name, f"{asked[name]:g} {name} in all with what comes before it, and {have}", sum(on_each)
                )
            if wish.replicas and amount > max(on_each, default=0.0):
                return _sentence(wish, name, "each on one node, and the largest has", max(on_each, default=0.0))
    return None


def _sentence(wish: Wish, name: str, problem: str, have: float) -> str:
    amount = resources_of(wish.spec.options.ray_actor_options)[name]
    each = f"{wish.replicas} replica{'s' if wish.replicas != 1 else ''} × {amount:g} {name}"
    hint = " Declare more with --num-gpus if they exist." if name == GPU else ""
    return (
        f"Deployment '{wish.spec.name}' asks for {each}, {problem} {have:g}. "
        f"Lower num_replicas or ray_actor_options.{hint}"
    )
