"""Whether what is asked can ever fit."""

import pytest

from salver.controller.desired import Wish
from salver.controller.placement import resources_of, shortage
from salver.schema.messages import NodeReport
from salver.schema.options import validated
from tests.unit.controller.scene import wish


def node(**total: float) -> NodeReport:
    """Return a node that has this, all of it in use."""
    return NodeReport("node", total, dict.fromkeys(total, 0.0))


def asking(replicas: int = 1, **resources: object) -> Wish:
    return wish(replicas, ray_actor_options=resources)


def test_a_replica_needs_one_cpu_unless_told_otherwise() -> None:
    assert resources_of(validated({}).ray_actor_options) == {"CPU": 1.0}


def test_what_is_not_needed_is_not_named() -> None:
    options = validated({"ray_actor_options": {"num_cpus": 0, "memory": 1024, "num_gpus": 0.5, "resources": {"x": 2}}})
    assert resources_of(options.ray_actor_options) == {"GPU": 0.5, "memory": 1024.0, "x": 2.0}


@pytest.mark.parametrize(
    ("wishes", "nodes", "strict"),
    [
        ([asking(2, num_gpus=1)], [node(CPU=2, GPU=2)], False),
        ([asking(2, num_gpus=1)], [node(GPU=1), node(GPU=1)], False),
        ([asking(8)], [node(CPU=2)], False),
        ([asking(2)], [node(CPU=2)], True),
        ([asking(10, num_gpus=0.1)], [node(GPU=1)], False),
        ([asking(3, num_gpus=0.1), asking(7, num_gpus=0.1)], [node(GPU=1)], False),
        ([asking(0, num_gpus=1)], [node(CPU=2)], False),
        ([], [], True),
    ],
    ids=["enough", "on two nodes", "shared CPUs", "strict CPUs", "shares", "sums of shares", "none", "nothing"],
)
def test_what_fits_on_idle_nodes_is_no_shortage(wishes: list[Wish], nodes: list[NodeReport], *, strict: bool) -> None:
    assert shortage(wishes, nodes, strict_cpus=strict) is None


@pytest.mark.parametrize(
    ("wishes", "nodes", "strict", "sentence"),
    [
        (
            [asking(1, num_gpus=1)],
            [node(CPU=2)],
            False,
            "Deployment 'Model' asks for 1 replica × 1 GPU, 1 GPU in all with what comes before it, and there are 0. "
            "Lower num_replicas or ray_actor_options. Declare more with --num-gpus if they exist.",
        ),
        (
            [asking(3)],
            [node(CPU=2)],
            True,
            "Deployment 'Model' asks for 3 replicas × 1 CPU, 3 CPU in all with what comes before it, and there are 2. "
            "Lower num_replicas or ray_actor_options.",
        ),
        (
            [asking(1, resources={"x": 1}), asking(1, resources={"x": 0.5})],
            [node(x=1)],
            False,
            "Deployment 'Model' asks for 1 replica × 0.5 x, 1.5 x in all with what comes before it, and there is 1. "
            "Lower num_replicas or ray_actor_options.",
        ),
        (
            [asking(1, num_gpus=2)],
            [node(GPU=1), node(GPU=1)],
            False,
            "Deployment 'Model' asks for 1 replica × 2 GPU, each on one node, and the largest has 1. "
            "Lower num_replicas or ray_actor_options. Declare more with --num-gpus if they exist.",
        ),
    ],
    ids=["no GPU", "strict CPUs", "custom", "no node is large enough"],
)
def test_a_shortage_says_what_is_asked_and_what_there_is(
    wishes: list[Wish], nodes: list[NodeReport], sentence: str, *, strict: bool
) -> None:
    assert shortage(wishes, nodes, strict_cpus=strict) == sentence
