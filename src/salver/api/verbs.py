"""The verbs: start, run, delete, status, shutdown, and handles by name."""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from salver.api.application import Application, parts_of
from salver.api.build import build
from salver.api.client import url_of
from salver.api.driver import Driver, ensure_driver, find_driver, local_launch, stop_driver
from salver.api.instance import Declared, declared
from salver.api.run_target import RunTarget, checked
from salver.handle import DeploymentHandle
from salver.handle.link import ControllerLink
from salver.handle.session import Session, find_session
from salver.lib.loading import loading
from salver.lib.tasks import Tasks
from salver.runtime.context import find_replica_context
from salver.schema.application import ApplicationSpec
from salver.schema.errors import InvalidOption, SalverError
from salver.schema.http import HTTPOptions, ProxyLocation
from salver.schema.http import http_options as validated_http
from salver.schema.http import proxy_location as located
from salver.schema.ids import DEFAULT_APP_NAME
from salver.schema.messages import ApplicationFound, FindApplication, GetStatus, Message, StatusReport
from salver.schema.settings import read_settings
from salver.schema.status import ServeStatus
from salver.telemetry.logs import LOGGER_NAME, set_up_logging
from salver.transport.peer import Answer
from salver.transport.sockets import Dial

T = TypeVar("T")
logger = logging.getLogger(LOGGER_NAME)

PROXY_TIMEOUT_S = 60.0
NOTHING_RUNS = "There is no Serve instance running here: call serve.run(app) or serve.start() first."


def start(
    proxy_location: ProxyLocation | str | None = None,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
    *,
    local_testing_mode: bool = False,
    **machine: Any,
) -> None:
    """Start an instance in the background, attached to this process; `run` does it where it was not done.

    Where one runs already, it is kept, and a warning names the HTTP options that differ from its own.

    Args:
        proxy_location: "Disabled" starts no proxy.
        http_options: Where the proxy listens; see `HTTPOptions`.
        local_testing_mode: Run everything inside this process, for tests; nothing listens then.
        **machine: What this machine has, where it should not be looked up: `num_cpus`, `num_gpus`,
            `resources` (custom ones, by name), and `strict_cpus=True` to make replicas wait for free CPUs.

    Raises:
        InvalidOption: An option is unknown or has a value that is not allowed.
        SalverError: It could not start, for a reason such as a port in use.
        TimeoutError: The proxy was not ready in time.
    """
    for name in machine:
        if name.startswith("http_"):
            raise InvalidOption(f"'{name}' is not an option of start; use http_options={{...}}.")
    own_machine = declared(machine)
    options = validated_http(http_options) if http_options is not None else _default_http()
    if located(proxy_location) is ProxyLocation.Disabled:
        options.host = None
    set_up_logging(read_settings().log_level)
    here = local_testing_mode or read_settings().local_testing_mode
    driver = _driver_of_kind(here=here)
    if driver is not None:
        logger.info("Connecting to the Serve instance that runs already. New http_options will not be applied.")
        if http_options is not None and driver.instance.http is not None:
            _warn_of_differences(driver.instance.http, options)
    elif find_session() is None:
        (_start_here if here else _start)(options, own_machine)


def run(
    target: Application[T],
    blocking: bool = False,
    name: str = DEFAULT_APP_NAME,
    route_prefix: str | None = "/",
    *,
    local_testing_mode: bool = False,
    _local_testing_mode: bool = False,
) -> DeploymentHandle[T]:
    """Deploy an application, wait until it runs, and return a handle to its ingress.

    Args:
        target: What `Deployment.bind()` returned.
        blocking: Stay until Ctrl-C.
        name: The application's name; one of the same name is replaced.
        route_prefix: Where HTTP requests find it; None for handles only.
        local_testing_mode: Run it inside this process, for tests. What a constructor raises is then raised here as it
            is. Also spelled `_local_testing_mode`; SALVER_LOCAL_TESTING_MODE=1 asks for it everywhere.

    Raises:
        TypeError: The target is no application.
        InvalidOption: The name is empty or the route prefix cannot be served.
        RuntimeError: It failed to deploy; the message has the reason, with the traceback of the user's code.
        SalverError: Another application has the route prefix, or the instance could not start.
    """
    (handle,) = run_many(
        [RunTarget(target, name, route_prefix)],
        blocking,
        local_testing_mode=local_testing_mode or _local_testing_mode,
    )
    return handle


def run_many(
    targets: Sequence[RunTarget],
    blocking: bool = False,
    wait_for_ingress_deployment_creation: bool = True,
    wait_for_applications_running: bool = True,
    *,
    local_testing_mode: bool = False,
    _local_testing_mode: bool = False,
) -> list[DeploymentHandle[Any]]:
    """Deploy several applications at once, wait until they run, and return the handles to their ingresses, in order.

    Nothing is changed if one of them is refused.

    Args:
        targets: The applications.
        blocking: Stay until Ctrl-C.
        wait_for_ingress_deployment_creation: Changes nothing: the deployments are known when this returns.
        wait_for_applications_running: False returns as soon as the applications are wanted.
        local_testing_mode: Run them inside this process, for tests; see `run`.

    Raises:
        ValueError: There is no target; or, as `InvalidOption`, a name or a route prefix is not allowed or there twice.
        TypeError: A target is no application.
        RuntimeError: One failed to deploy; the message has the reason, with the traceback of the user's code.
        SalverError: Another application has the route prefix, or the instance could not start.
    """
    targets = checked(targets)
    if (what := loading()) is not None:
        logger.info("serve.run() in %s is left out while it is imported.", what)
        return [DeploymentHandle(parts_of(each.target)[0].name, each.name) for each in targets]
    if find_replica_context() is not None:
        raise SalverError("serve.run() was called inside a replica; only drivers can run applications.")
    settings = read_settings()
    here = local_testing_mode or _local_testing_mode or settings.local_testing_mode
    specs = [
        build(each.target, name=each.name, route_prefix=each.route_prefix, in_this_process=here) for each in targets
    ]
    set_up_logging(settings.log_level)
    driver = _driver_of_kind(here=here) or (_start_here if here else _start)(_default_http(), Declared())
    driver.call(_deploy(driver, specs, wait=wait_for_applications_running))
    if wait_for_applications_running:
        for each in targets:
            _say_ready(driver.instance.http_url, each)
    if blocking:
        driver.call(_until_ended(driver))
    return [DeploymentHandle(each.ingress, each.name) for each in specs]


def delete(name: str, _blocking: bool = True) -> None:
    """Drain and remove an application; returns when it is gone. An unknown name is no error.

    Args:
        name: The application.
        _blocking: False returns as soon as the wish is on its way.

    Raises:
        SalverError: Nothing runs.
    """
    driver = find_driver()
    if driver is None:
        raise SalverError(NOTHING_RUNS)
    if _blocking:
        driver.call(driver.instance.delete(name))
    else:
        driver.begin(driver.instance.delete(name), name=f"delete {name}")


def status() -> ServeStatus:
    """Return the status of the instance; an empty one where nothing runs."""
    session = find_session()
    return ServeStatus() if session is None else _ask(session, GetStatus(), StatusReport).status


def shutdown() -> None:
    """Drain and remove every application and end the instance; does nothing where nothing runs.

    A process that is only connected to an instance leaves it, and it goes on.
    """
    if find_driver() is None:
        logger.info("Nothing to shut down: no Serve instance runs here.")
    stop_driver()


async def shutdown_async() -> None:
    """Do what `shutdown` does, from an event loop."""
    await asyncio.to_thread(shutdown)


def get_app_handle(name: str) -> DeploymentHandle[Any]:
    """Return a handle to an application's ingress.

    Raises:
        SalverError: There is no such application, or nothing runs.
    """
    found = _ask(_session(), FindApplication(name), ApplicationFound)
    if found.ingress is None:
        raise SalverError(f"Application '{name}' does not exist.")
    return DeploymentHandle(found.ingress.name, name)


def get_deployment_handle(
    deployment_name: str,
    app_name: str | None = None,
    _check_exists: bool = True,
) -> DeploymentHandle[Any]:
    """Return a handle to a deployment by name.

    Args:
        app_name: Its application; inside a replica its own one by default.

    Raises:
        SalverError: No application was named outside of one, or nothing runs.
        KeyError: There is no such deployment.
    """
    if app_name is None:
        context = find_replica_context()
        if context is None:
            raise SalverError(
                "Please specify an application name when getting a deployment handle outside of a Serve application."
            )
        app_name = context.app_name
    if _check_exists:
        found = _ask(_session(), FindApplication(app_name), ApplicationFound)
        if deployment_name not in found.deployments:
            raise KeyError(f"Deployment(name='{deployment_name}', app='{app_name}') does not exist.")
    return DeploymentHandle(deployment_name, app_name)


def _driver_of_kind(*, here: bool) -> Driver | None:
    """Return the driver that runs, if one does.

    Raises:
        SalverError: It runs applications in the other way.
    """
    driver = find_driver()
    if driver is not None and driver.instance.runs_here is not here:
        runs, asked = ("inside this process", "in processes")[:: 1 if not here else -1]
        raise SalverError(
            f"Applications run {runs} already, and were asked for {asked}; one process has one way. "
            "Call serve.shutdown() first."
        )
    return driver


def _start_here(http: HTTPOptions, machine: Declared) -> Driver:
    return ensure_driver(http, machine, local_launch())


def _start(http: HTTPOptions, machine: Declared) -> Driver:
    driver = ensure_driver(http, machine)
    try:
        driver.call(driver.instance.until_proxies_serve(PROXY_TIMEOUT_S))
    except TimeoutError:
        stop_driver()
        raise TimeoutError(f"HTTP proxies not available after {PROXY_TIMEOUT_S:g}s.") from None
    logger.info("Started Serve%s", f" at {driver.instance.http_url}" if driver.instance.http_url else "")
    return driver


def _warn_of_differences(running: HTTPOptions, wanted: HTTPOptions) -> None:
    differing = [name for name, value in msgspec.structs.asdict(wanted).items() if value != getattr(running, name)]
    if differing:
        logger.warning("The instance that runs has other http_options than these: %s.", ", ".join(differing))


def _default_http() -> HTTPOptions:
    return HTTPOptions(host=read_settings().default_http_host)


def _session() -> Session:
    session = find_session()
    if session is None:
        raise SalverError(NOTHING_RUNS)
    return session


async def _deploy(driver: Driver, specs: Sequence[ApplicationSpec], *, wait: bool) -> None:
    await driver.instance.deploy(*specs)
    if wait:
        await driver.instance.until_running(*(each.name for each in specs))


def _say_ready(url: str | None, target: RunTarget) -> None:
    where = f" at {url_of(url, target.route_prefix)}" if url and target.route_prefix else ""
    logger.info("Application '%s' is ready%s", target.name, where)


async def _until_ended(driver: Driver) -> None:
    raise SalverError(await asyncio.shield(driver.instance.ended))


def _ask(session: Session, message: Message, answer: type[Answer]) -> Answer:
    """Ask the controller from any thread; from the session's own loop through a line of its own, for it is blocked."""
    try:
        in_session_loop = asyncio.get_running_loop() is session.loop
    except RuntimeError:
        in_session_loop = False
    if not in_session_loop:
        return asyncio.run_coroutine_threadsafe(session.link.ask(message, answer), session.loop).result()
    return _in_a_thread(_ask_apart(session.controller_address, session.dial, message, answer))


async def _ask_apart(address: str, dial: Dial, message: Message, answer: type[Answer]) -> Answer:
    link = ControllerLink(role="driver", name="question", tasks=Tasks(on_error=lambda _name, _error: None), dial=dial)
    await link.connect(address)
    try:
        return await link.ask(message, answer)
    finally:
        link.close()


def _in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=target, name="salver-question")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
