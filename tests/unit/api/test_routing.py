"""`request_router_config`: what is allowed, and what is told to callers."""

from typing import Any

import pytest

from salver.api.build import build
from salver.api.deployment import deployment
from salver.config import RequestRouterConfig
from salver.experimental.consistent_hash_router import ConsistentHashRouter
from salver.experimental.round_robin_router import RoundRobinRouter
from salver.request_router import PowerOfTwoChoicesRequestRouter, RequestRouter
from salver.schema.application import ImportedCode, PickledCode, RouterSpec
from salver.schema.errors import InvalidOption


class Own(RequestRouter):
    """A router of a user."""

    def initialize_state(self, size: int = 1) -> None:
        self.size = size

    async def choose_replicas(self, candidate_replicas: Any, pending_request: Any) -> Any:
        return [candidate_replicas]


class Abstract(RequestRouter):
    """Does not choose."""


def router_of(config: Any) -> RouterSpec | None:
    """Return what callers of a deployment with a config are told."""

    @deployment(request_router_config=config)
    def model() -> int:
        return 1

    [spec] = build(model.bind(), name="shop", route_prefix=None).deployments
    return spec.router


def test_request_router_class_is_two_choices_by_default() -> None:
    config = RequestRouterConfig()
    assert config.request_router_class == "salver.request_router:PowerOfTwoChoicesRequestRouter"
    assert config.request_router_kwargs == {}
    assert (config.request_routing_stats_period_s, config.request_routing_stats_timeout_s) == (10, 30)
    assert (config.initial_backoff_s, config.backoff_multiplier, config.max_backoff_s) == (0.025, 2, 0.5)
    assert router_of(config) is None
    assert router_of(None) is None


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ("round_robin", "round_robin"),
        (RoundRobinRouter, "round_robin"),
        ("salver.experimental.round_robin_router:RoundRobinRouter", "round_robin"),
        ("ray.serve.experimental.round_robin_router:RoundRobinRouter", "round_robin"),
        ("salver.request_router.LeastLoadedRouter", "least_loaded"),
        ("locality", "locality"),
    ],
)
def test_salvers_own_policies_are_given_by_name_by_path_or_as_a_class(given: Any, policy: str) -> None:
    assert router_of({"request_router_class": given}) == RouterSpec(policy=policy)


@pytest.mark.parametrize("given", [PowerOfTwoChoicesRequestRouter, "power_of_two_choices"])
def test_two_choices_by_name_are_the_default(given: Any) -> None:
    assert router_of({"request_router_class": given}) is None


def test_the_arguments_of_a_policy_have_defaults() -> None:
    given = {"request_router_class": ConsistentHashRouter, "request_router_kwargs": {"num_virtual_nodes": 10}}
    kwargs = {"num_virtual_nodes": 10, "num_fallback_replicas": 2}
    assert router_of(given) == RouterSpec(policy="consistent_hash", kwargs=kwargs)


@pytest.mark.parametrize("given", [Own, f"{__name__}:Own"])
def test_a_class_with_an_import_path_is_told_by_it(given: Any) -> None:
    told = router_of({"request_router_class": given, "request_router_kwargs": {"size": 2}})
    assert told == RouterSpec(code=ImportedCode(__name__, "Own"), kwargs={"size": 2})


def test_a_class_without_an_import_path_is_told_whole() -> None:
    class Local(Own):
        pass

    told = router_of({"request_router_class": Local})
    assert told is not None
    assert isinstance(told.code, PickledCode)
    assert told.blob


def test_the_options_that_travel_name_the_class() -> None:
    model: Any = deployment(request_router_config={"request_router_class": Own})(Own)
    [spec] = build(model.bind(), name="shop", route_prefix=None).deployments
    assert spec.options.request_router_config is not None
    assert spec.options.request_router_config.request_router_class == f"{__name__}:Own"
    assert model.request_router_config.request_router_class is Own


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("nowhere.at_all:Cls", ModuleNotFoundError, "nowhere"),
        ("salver.request_router:Nothing", AttributeError, "Nothing"),
        ("salver.request_router:ReplicaID", InvalidOption, "is no subclass of salver.request_router.RequestRouter"),
        (Abstract, InvalidOption, "Abstract does not define choose_replicas"),
        (3, InvalidOption, "3 is no subclass"),
        ("roundrobin", InvalidOption, "Did you mean 'round_robin'"),
    ],
)
def test_a_bad_import_or_no_router_is_an_error_at_decoration(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        deployment(request_router_config={"request_router_class": given})


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"request_router_klass": "x"}, "no key 'request_router_klass'. Did you mean 'request_router_class'"),
        ({"request_routing_stats_period_s": 0}, "request_routing_stats_period_s.*> 0"),
        ({"request_routing_stats_timeout_s": 0}, "request_routing_stats_timeout_s.*> 0"),
        ({"request_router_kwargs": {"a": object()}}, "request_router_kwargs.*not JSON-serializable"),
        (
            {"request_router_class": "consistent_hash", "request_router_kwargs": {"num_virtual_node": 1}},
            "no key 'num_virtual_node'. Did you mean 'num_virtual_nodes'",
        ),
        (
            {"request_router_class": "consistent_hash", "request_router_kwargs": {"num_virtual_nodes": 0}},
            "num_virtual_nodes.*>= 1",
        ),
        ({"request_router_class": "round_robin", "request_router_kwargs": {"a": 1}}, "has no key 'a'"),
        ({"request_router_class": Own, "request_router_kwargs": {"b": 1}}, "does not take: .*'b'"),
    ],
)
def test_keys_and_arguments_that_are_unknown_or_not_allowed_are_refused(config: Any, text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        deployment(request_router_config=config)
