"""Whether what is asked can ever fit. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from salver.controller.desired import Wish
from salver.schema.messages import NodeReport
from salver.schema.options import ActorOptions

CPU = "CPU"
GPU = "GPU"
MEMORY = "memory"


def resources_of(options: ActorOptions) -> dict[str, float]:
    """Return what one replica needs, by resource name."""
    needed = {CPU: options.num_cpus, GPU: options.num_gpus, MEMORY: float(options.memory), **options.resources}
    return {name: amount for name, amount in needed.items() if amount > 0}


def shortage(wishes: Iterable[Wish], nodes: Sequence[NodeReport], *, strict_cpus: bool) -> str | None:
    """Return why replicas can never all run on these nodes, or None.

    Only what stays impossible when everything else is idle counts: what others use now may become free.
    """
    total: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.total.items():
            total[name] = total.get(name, 0.0) + amount
    asked: dict[str, float] = {}
    for wish in wishes:
        needed = resources_of(wish.spec.options.ray_actor_options)
        for name, amount in needed.items():
            if name == CPU and not strict_cpus:
                continue
            asked[name] = asked.get(name, 0.0) + amount * wish.replicas
            if asked[name] > total.get(name, 0.0):
                return _sentence(wish, name, amount, asked[name], total)
    return None


def _sentence(wish: Wish, name: str, amount: float, asked: float, total: Mapping[str, float]) -> str:
    have = f"{total.get(name, 0.0):g}"
    each = f"{wish.replicas} replica{'s' if wish.replicas != 1 else ''} × {amount:g} {name}"
    hint = " Declare more with --num-gpus if they exist." if name == GPU else ""
    return (
        f"Deployment '{wish.spec.name}' asks for {each}, {asked:g} {name} in all with what comes before it, "
        f"and there {'is' if have == '1' else 'are'} {have}. Lower num_replicas or ray_actor_options.{hint}"
    )
