"""The verbs where nothing is started: what they refuse, what they say when nothing runs, what they pass on."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

import salver as serve
from salver.api import verbs
from salver.api.client import url_of
from salver.api.instance import Declared, declared
from salver.handle import DeploymentHandle
from salver.lib.loading import set_loading
from salver.runtime.context import ReplicaContext, set_replica_context
from salver.schema.application import ApplicationSpec
from salver.schema.errors import BuildFailed, InvalidOption, SalverError
from salver.schema.http import HTTPOptions
from salver.schema.ids import DeploymentID, ReplicaID
from salver.schema.messages import ApplicationFound, FindApplication
from salver.schema.status import ServeStatus


@serve.deployment
class Model:
    """Takes anything."""

    def __init__(self, *args: Any) -> None:
        self.args = args


class FakeInstance:
    """Remembers what it was told."""

    def __init__(self, http: HTTPOptions) -> None:
        self.http = http
        self.runs_here = False
        self.http_url: str | None = None if http.host is None else f"http://{http.host}:{http.port}"
        self.deployed: list[ApplicationSpec] = []
        self.deleted: list[str] = []
        self.waited_for: tuple[str, ...] = ()

    async def deploy(self, *specs: ApplicationSpec) -> None:
        """Part of Instance."""
        self.deployed += specs

    async def until_running(self, *names: str) -> None:
        """Part of Instance."""
        self.waited_for = names

    async def delete(self, name: str) -> None:
        """Part of Instance."""
        self.deleted.append(name)


class FakeDriver:
    """Runs coroutines where it is called."""

    def __init__(self, http: HTTPOptions, machine: Declared) -> None:
        self.instance = FakeInstance(http)
        self.machine = machine

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Part of Driver."""
        return asyncio.run(work)

    def begin(self, work: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Part of Driver."""
        asyncio.run(work)


class Drivers:
    """Stands for the one instance that a process may have."""

    driver: FakeDriver | None = None

    def find(self) -> Any:
        """Part of `driver`."""
        return self.driver

    def start(self, http: HTTPOptions, machine: Declared) -> Any:
        """Part of `verbs`."""
        self.driver = FakeDriver(http, machine)
        return self.driver

    @property
    def the_driver(self) -> FakeDriver:
        """Return the driver, which was started."""
        assert self.driver is not None
        return self.driver


@pytest.fixture(autouse=True)
def drivers(monkeypatch: pytest.MonkeyPatch) -> Drivers:
    """Put fakes where processes would be started."""
    fake = Drivers()
    monkeypatch.setattr(verbs, "find_driver", fake.find)
    monkeypatch.setattr(verbs, "_start", fake.start)
    monkeypatch.setattr(verbs, "stop_driver", lambda: None)
    monkeypatch.setattr(verbs, "set_up_logging", lambda _level: None)
    monkeypatch.setattr(verbs, "find_session", lambda: None)
    return fake


@pytest.fixture
def in_a_replica() -> Iterator[None]:
    """Be in a replica of the application "shop"."""
    set_replica_context(ReplicaContext(ReplicaID("1234abcd", DeploymentID("model", "shop")), None, "v1"))
    yield
    set_replica_context(None)


# ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "target", [Model, Model.func_or_class, None, DeploymentHandle("Model")], ids=["unbound", "class", "None", "handle"]
)
def test_only_applications_can_be_run(target: Any, drivers: Drivers) -> None:
    with pytest.raises(TypeError, match=r"`serve\.run` expects an `Application` returned by `Deployment\.bind"):
        serve.run(target)
    assert drivers.driver is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"name": ""}, "Application name must a non-empty string", id="empty name"),
        pytest.param({"name": 7}, "Application name must a non-empty string", id="name is a number"),
        pytest.param({"route_prefix": "x"}, "must start with a forward slash", id="prefix without slash"),
        pytest.param({"route_prefix": "/x/"}, "may not end with a trailing '/'", id="prefix with two"),
        pytest.param({"route_prefix": "/{x}"}, "may not contain wildcards", id="wildcard"),
    ],
)
def test_wrong_arguments_of_run_start_nothing(options: dict[str, Any], message: str, drivers: Drivers) -> None:
    with pytest.raises(InvalidOption, match=message):
        serve.run(Model.bind(), **options)
    assert drivers.driver is None


def test_an_application_that_cannot_be_built_starts_nothing(drivers: Drivers) -> None:
    with pytest.raises(BuildFailed, match="cannot be pickled"):
        serve.run(Model.bind(each for each in "generator"))
    assert drivers.driver is None


def test_run_starts_an_instance_deploys_and_returns_a_handle(
    drivers: Drivers, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        handle = serve.run(Model.bind(Model.bind()), name="shop", route_prefix="/s")
    assert handle == DeploymentHandle("Model_1", "shop")
    (spec,) = drivers.the_driver.instance.deployed
    assert (spec.name, spec.route_prefix, spec.ingress) == ("shop", "/s", "Model_1")
    assert "Application 'shop' is ready at http://127.0.0.1:8000/s" in caplog.messages


def test_run_uses_the_instance_that_runs(drivers: Drivers) -> None:
    running = drivers.start(HTTPOptions(port=9000), Declared())
    serve.run(Model.bind(), name="first", route_prefix="/a")
    serve.run(Model.bind(), name="second", route_prefix="/b")
    assert drivers.driver is running
    assert [spec.name for spec in drivers.the_driver.instance.deployed] == ["first", "second"]


@pytest.mark.parametrize("host", [None, "127.0.0.1"], ids=["no proxy", "no prefix"])
def test_an_application_that_http_does_not_reach_is_ready_without_an_address(
    host: str | None, drivers: Drivers, caplog: pytest.LogCaptureFixture
) -> None:
    drivers.start(HTTPOptions(host=host), Declared())
    with caplog.at_level(logging.INFO):
        serve.run(Model.bind(), route_prefix="/" if host is None else None)
    assert "Application 'default' is ready" in caplog.messages


def test_run_is_left_out_while_its_module_is_imported(drivers: Drivers, caplog: pytest.LogCaptureFixture) -> None:
    set_loading("main")
    try:
        with caplog.at_level(logging.INFO):
            assert serve.run(Model.bind(), name="shop") == DeploymentHandle("Model", "shop")
    finally:
        set_loading(None)
    assert drivers.driver is None
    assert "serve.run() in main is left out while it is imported." in caplog.messages


@pytest.mark.usefixtures("in_a_replica")
def test_a_replica_cannot_run_applications(drivers: Drivers) -> None:
    with pytest.raises(SalverError, match="was called inside a replica"):
        serve.run(Model.bind())
    assert drivers.driver is None


# ── run_many ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_run_many_deploys_all_and_returns_their_handles_in_order(drivers: Drivers) -> None:
    handles = serve.run_many(
        [serve.RunTarget(Model.bind(), "first", "/first"), serve.RunTarget(Model.bind(), "second", None)]
    )
    assert handles == [DeploymentHandle("Model", "first"), DeploymentHandle("Model", "second")]
    instance = drivers.the_driver.instance
    assert [(each.name, each.route_prefix) for each in instance.deployed] == [("first", "/first"), ("second", None)]
    assert instance.waited_for == ("first", "second")


def test_run_many_need_not_wait(drivers: Drivers) -> None:
    serve.run_many([serve.RunTarget(Model.bind())], wait_for_applications_running=False)
    assert drivers.the_driver.instance.waited_for == ()


def test_run_many_of_nothing_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"^No applications provided\.$"):
        serve.run_many([])


def test_run_many_refuses_a_name_or_a_prefix_that_is_there_twice(drivers: Drivers) -> None:
    with pytest.raises(InvalidOption, match="Two applications are named 'default'"):
        serve.run_many([serve.RunTarget(Model.bind(), route_prefix="/a"), serve.RunTarget(Model.bind())])
    with pytest.raises(
        SalverError, match=r'Prefix / is being used by application "a"\. Failed to deploy application "b"'
    ):
        serve.run_many([serve.RunTarget(Model.bind(), "a"), serve.RunTarget(Model.bind(), "b")])
    serve.run_many([serve.RunTarget(Model.bind(), "a", None), serve.RunTarget(Model.bind(), "b", None)])
    assert len(drivers.the_driver.instance.deployed) == 2


def test_run_many_refuses_what_is_no_target() -> None:
    with pytest.raises(TypeError, match="expects RunTarget objects, got Application"):
        serve.run_many([Model.bind()])
    with pytest.raises(TypeError, match="expects an `Application`"):
        serve.run_many([serve.RunTarget(Model)])  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="must start with a forward slash"):
        serve.run_many([serve.RunTarget(Model.bind(), route_prefix="a")])


def test_a_run_target_is_frozen_and_has_the_defaults_of_run() -> None:
    target = serve.RunTarget(Model.bind())
    assert (target.name, target.route_prefix) == ("default", "/")
    with pytest.raises(AttributeError):
        target.name = "other"  # type: ignore[misc]


# ── start ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_start_takes_dictionaries_and_objects(drivers: Drivers) -> None:
    serve.start(http_options={"port": "9000"}, num_cpus=2, resources={"tpu": 1}, strict_cpus=True)
    assert drivers.the_driver.instance.http == HTTPOptions(port=9000)
    assert drivers.the_driver.machine == Declared(num_cpus=2.0, resources={"tpu": 1.0}, strict_cpus=True)
    drivers.driver = None
    serve.start(http_options=HTTPOptions(root_path="/x"))
    assert drivers.the_driver.instance.http.root_path == "/x"


def test_start_listens_where_the_environment_says(drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_HTTP_HOST", "0.0.0.0")
    serve.start()
    assert drivers.the_driver.instance.http.host == "0.0.0.0"


@pytest.mark.parametrize("location", ["Disabled", "NoServer", serve.ProxyLocation.Disabled], ids=str)
def test_a_disabled_proxy_leaves_the_users_options_alone(location: Any, drivers: Drivers) -> None:
    options = HTTPOptions(host="127.0.0.1")
    serve.start(proxy_location=location, http_options=options)
    assert drivers.the_driver.instance.http.host is None
    assert options.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param(
            {"http_host": "x"}, ValueError, r"'http_host' is not an option of start; use http_options", id="old"
        ),
        pytest.param({"http_port": 1}, ValueError, r"'http_port' is not an option of start", id="old port"),
        pytest.param({"num_cpu": 1}, TypeError, "unexpected keyword 'num_cpu'.*Did you mean 'num_cpus'", id="typo"),
        pytest.param({"num_cpus": "many"}, ValueError, "'num_cpus' got 'many': expected a number", id="no number"),
        pytest.param({"num_gpus": -1}, ValueError, "'num_gpus' got -1", id="negative"),
        pytest.param({"resources": {"tpu": -1}}, ValueError, "'resources' got", id="negative resource"),
        pytest.param({"strict_cpus": "perhaps"}, ValueError, "'strict_cpus' got 'perhaps'", id="no truth"),
        pytest.param({"http_options": {"prt": 1}}, ValueError, "Did you mean 'port'", id="http typo"),
        pytest.param({"http_options": {"port": 70000}}, ValueError, "port", id="no port"),
        pytest.param({"http_options": 7}, ValueError, "expected a dictionary", id="no dictionary"),
        pytest.param({"proxy_location": "Moon"}, ValueError, "proxy_location got 'Moon'", id="location"),
    ],
)
def test_wrong_arguments_of_start_start_nothing(
    options: dict[str, Any], error: type[Exception], message: str, drivers: Drivers
) -> None:
    with pytest.raises(error, match=message):
        serve.start(**options)
    assert drivers.driver is None


def test_starting_again_keeps_what_runs_and_names_what_differs(
    drivers: Drivers, caplog: pytest.LogCaptureFixture
) -> None:
    running = drivers.start(HTTPOptions(port=9000), Declared())
    with caplog.at_level(logging.INFO):
        serve.start(http_options={"port": 9001, "root_path": "/x"})
    assert drivers.driver is running
    assert "New http_options will not be applied." in caplog.text
    assert "The instance that runs has other http_options than these: port, root_path." in caplog.messages


@pytest.mark.parametrize("options", [{}, {"http_options": {"port": 9000}}], ids=["none given", "the same"])
def test_starting_again_with_the_same_options_warns_of_nothing(
    options: dict[str, Any], drivers: Drivers, caplog: pytest.LogCaptureFixture
) -> None:
    drivers.start(HTTPOptions(port=9000), Declared())
    with caplog.at_level(logging.WARNING):
        serve.start(**options)
    assert caplog.messages == []


def test_nothing_declared_of_a_machine_means_what_is_found() -> None:
    assert declared({}) == Declared(num_cpus=None, num_gpus=None, resources={}, strict_cpus=False)
    assert declared({"num_cpus": None}).num_cpus is None


# ── Nothing runs ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda: serve.delete("shop"), id="delete"),
        pytest.param(lambda: serve.delete("shop", _blocking=False), id="delete without waiting"),
        pytest.param(lambda: serve.get_app_handle("shop"), id="get_app_handle"),
        pytest.param(lambda: serve.get_deployment_handle("model", "shop"), id="get_deployment_handle"),
    ],
)
def test_where_nothing_runs_verbs_say_what_to_call_first(ask: Any) -> None:
    with pytest.raises(SalverError, match=r"no Serve instance running here: call serve\.run\(app\)"):
        ask()


def test_where_nothing_runs_the_status_is_empty() -> None:
    assert serve.status() == ServeStatus(proxies={}, applications={}, target_capacity=None)


def test_where_nothing_runs_shutdown_only_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        serve.shutdown()
        asyncio.run(serve.shutdown_async())
    assert caplog.messages == ["Nothing to shut down: no Serve instance runs here."] * 2


def test_a_call_where_nothing_runs_says_what_to_call_first() -> None:
    handle = serve.get_deployment_handle("model", "shop", _check_exists=False)
    with pytest.raises(SalverError, match=r"call serve\.run\(app\) first"):
        handle.remote()


# ── Something runs ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("blocking", [True, False])
def test_delete_is_handed_to_the_instance(blocking: bool, drivers: Drivers) -> None:
    drivers.start(HTTPOptions(), Declared())
    serve.delete("shop", _blocking=blocking)
    assert drivers.the_driver.instance.deleted == ["shop"]


class TestHandles:
    """Handles by name, in an instance with one application, "shop"."""

    @pytest.fixture(autouse=True)
    def shop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Answer for a controller."""

        def answer(_session: object, question: FindApplication, _kind: object) -> ApplicationFound:
            if question.name != "shop":
                return ApplicationFound(None)
            return ApplicationFound(DeploymentID("ingress", "shop"), ("ingress", "model"))

        monkeypatch.setattr(verbs, "_session", object)
        monkeypatch.setattr(verbs, "_ask", answer)

    def test_an_applications_handle_leads_to_its_ingress(self) -> None:
        assert serve.get_app_handle("shop") == DeploymentHandle("ingress", "shop")

    def test_an_unknown_application_is_named(self) -> None:
        with pytest.raises(SalverError, match=r"Application 'zz' does not exist\."):
            serve.get_app_handle("zz")

    def test_a_deployments_handle_is_found_by_both_names(self) -> None:
        assert serve.get_deployment_handle("model", "shop") == DeploymentHandle("model", "shop")
        assert serve.get_deployment_handle("model", app_name="shop").app_name == "shop"

    @pytest.mark.parametrize("app_name", ["shop", "zz"], ids=["no such deployment", "no such application"])
    def test_an_unknown_deployment_is_a_key_error(self, app_name: str) -> None:
        with pytest.raises(KeyError, match=rf"Deployment\(name='SS', app='{app_name}'\) does not exist\."):
            serve.get_deployment_handle("SS", app_name)

    def test_nobody_looks_where_nobody_should(self) -> None:
        handle = serve.get_deployment_handle("SS", "zz", _check_exists=False)
        assert (handle.deployment_name, handle.app_name) == ("SS", "zz")

    @pytest.mark.usefixtures("in_a_replica")
    def test_a_replica_looks_in_its_own_application(self) -> None:
        assert serve.get_deployment_handle("model") == DeploymentHandle("model", "shop")

    def test_elsewhere_the_application_must_be_named(self) -> None:
        with pytest.raises(SalverError, match="Please specify an application name when getting a deployment handle"):
            serve.get_deployment_handle("model")


@pytest.mark.parametrize(
    ("prefix", "url"),
    [(None, "http://h:1/"), ("/", "http://h:1/"), ("/a", "http://h:1/a"), ("/a/b", "http://h:1/a/b")],
    ids=str,
)
def test_an_application_answers_below_its_prefix(prefix: str | None, url: str) -> None:
    assert url_of("http://h:1", prefix) == url
