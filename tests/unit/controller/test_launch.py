"""From a wish to a process."""

from dataclasses import replace
from typing import Any

import msgspec

from salver.controller.launch import preload_for, process_name, replica_process
from salver.schema.application import Preload
from salver.schema.ids import ReplicaID
from salver.schema.options import ActorOptions, validated
from salver.schema.process_payloads import ReplicaPayload
from tests.unit.controller.scene import ID, wish

PRELOAD = Preload("/code", modules=("shop",), env={"COLOUR": "red"})


def test_numeric_libraries_are_told_their_number_of_threads_before_they_are_imported() -> None:
    assert preload_for(PRELOAD, ActorOptions(num_cpus=2.5)).env["OMP_NUM_THREADS"] == "3"
    assert preload_for(PRELOAD, ActorOptions(num_cpus=0)).env["OMP_NUM_THREADS"] == "1"


def test_the_users_environment_wins() -> None:
    options = ActorOptions(runtime_env={"env_vars": {"COLOUR": "blue", "OMP_NUM_THREADS": "8"}})
    assert preload_for(PRELOAD, options).env == {"COLOUR": "blue", "OMP_NUM_THREADS": "8"}


def test_numbers_in_the_environment_become_text() -> None:
    options = validated({"ray_actor_options": {"runtime_env": {"env_vars": {"LEVEL": 3}}}}).ray_actor_options
    preload = preload_for(PRELOAD, options)
    assert preload.env["LEVEL"] == "3"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(preload), type=Preload) == preload


def test_equal_options_share_a_preload() -> None:
    assert preload_for(PRELOAD, ActorOptions()) == preload_for(PRELOAD, ActorOptions())
    assert preload_for(PRELOAD, ActorOptions()) != preload_for(PRELOAD, ActorOptions(num_cpus=2))


def test_a_replica_is_told_all_it_needs() -> None:
    wanted = wish(2, max_ongoing_requests=7, user_config={"a": 1}, ray_actor_options={"num_cpus": 2, "num_gpus": 0.5})
    replica = ReplicaID("12345678", ID)
    process = replica_process(wanted, replica, controller_address="unix:/c", expose_tracebacks=True)
    assert (process.name, process.name) == (process_name(replica), "Model#12345678")
    assert process.resources == {"CPU": 2.0, "GPU": 0.5}
    assert process.preload is not None
    assert process.preload.env["OMP_NUM_THREADS"] == "2"
    payload = msgspec.msgpack.decode(process.payload, type=ReplicaPayload)
    assert (payload.replica, payload.controller_address) == (replica, "unix:/c")
    assert (payload.max_ongoing_requests, payload.user_config, payload.code_version) == (7, {"a": 1}, "v1")


def test_a_replica_is_told_how_often_it_is_asked_for_statistics() -> None:
    def told(**options: Any) -> tuple[float, float, float]:
        wanted = wish()
        spec = msgspec.structs.replace(wanted.spec, options=validated(options))
        process = replica_process(
            replace(wanted, spec=spec), ReplicaID("1", ID), controller_address="unix:/c", expose_tracebacks=False
        )
        payload = msgspec.msgpack.decode(process.payload, type=ReplicaPayload)
        return payload.routing_stats_period_s, payload.routing_stats_timeout_s, payload.autoscaling_stats_period_s

    assert told() == (10.0, 30.0, 10.0)
    config = {"request_routing_stats_period_s": 1, "request_routing_stats_timeout_s": 2}
    assert told(request_router_config=config, autoscaling_config={"metrics_interval_s": 3}) == (1.0, 2.0, 3.0)
