"""`salver run`: serve one application in the foreground."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from salver.api.build import checked_app_name, checked_route_prefix
from salver.api.instance import Declared, Instance, declared
from salver.cli.display import Display
from salver.lib.importing import ImportFailed, parse_target
from salver.lib.tasks import Tasks
from salver.schema.application import Preload
from salver.schema.errors import SalverError
from salver.schema.http import HTTPOptions, http_options
from salver.schema.settings import read_settings

T = TypeVar("T")

# Python takes a file for unchanged that is edited twice within a second and keeps its size.
_FRESH_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
_MACHINE = ("num_cpus", "num_gpus", "strict_cpus")


@dataclass(frozen=True)
class Order:
    """What to run."""

    import_path: str
    arguments: Mapping[str, str]
    name: str
    route_prefix: str | None
    preload: Preload
    http: HTTPOptions
    machine: Declared
    watch: Path | None


@click.command()
@click.argument("import_path")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--host", default=None, help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", "-p", default=8000, show_default=True, help="Port to listen on; 0 lets the system choose.")
@click.option(
    "--http", multiple=True, metavar="KEY=VALUE", help="Another HTTP option, such as num_proxies=2; repeatable."
)
@click.option("--name", default="default", show_default=True, help="The application's name.")
@click.option("--route-prefix", default="/", show_default=True, help="Where HTTP requests find it.")
@click.option("--app-dir", "-d", default=".", show_default=True, help="Directory to import from.")
@click.option("--working-dir", default=None, help="Directory the replicas run in.  [default: this one]")
@click.option("--runtime-env-json", default=None, help='JSON with "env_vars" and "working_dir" for the replicas.')
@click.option("--runtime-env", type=click.Path(exists=True, dir_okay=False), help="The same from a JSON or YAML file.")
@click.option("--reload", "-r", is_flag=True, help="Build and deploy again when a Python file changes.")
@click.option("--num-cpus", type=float, default=None, help="CPUs to count with.  [default: this machine's]")
@click.option("--num-gpus", type=float, default=None, help="GPUs to count with.  [default: this machine's]")
@click.option("--strict-cpus", is_flag=True, help="Make replicas wait for free CPUs instead of sharing them.")
def run(import_path: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Serve an application until Ctrl-C.

    IMPORT_PATH is `module:app` or `path/to/file.py:app`; `app` is what `.bind()` returned, or a function that takes
    the KEY=VALUE arguments as a dictionary and returns it.

    \b
    Examples:
      salver run main:app
      salver run examples/digits.py:app --port 9000 --reload
      salver run main:build model=small --route-prefix /small
      salver run main:app --http ssl_certfile=cert.pem --http ssl_keyfile=key.pem
    """
    try:
        order = _order(import_path, arguments, options)
    except (SalverError, ImportFailed) as error:
        raise click.ClickException(str(error)) from None
    sys.exit(asyncio.run(_Run(order).until_stopped()))


def _order(import_path: str, arguments: tuple[str, ...], options: Mapping[str, Any]) -> Order:
    app_dir = Path(options["app_dir"]).resolve()
    if not app_dir.is_dir():
        raise click.ClickException(f"--app-dir '{options['app_dir']}' is not a directory.")
    runtime_env = _runtime_env(options["runtime_env"], options["runtime_env_json"])
    working_dir = Path(options["working_dir"] or runtime_env.get("working_dir") or os.getcwd()).resolve()
    if not working_dir.is_dir():
        raise click.ClickException(f"--working-dir '{working_dir}' is not a directory.")
    target = parse_target(import_path)
    return Order(
        import_path=import_path,
        arguments=dict(_argument(each) for each in arguments),
        name=checked_app_name(options["name"]),
        route_prefix=checked_route_prefix(options["route_prefix"]),
        preload=Preload(
            working_dir=str(working_dir),
            search_path=tuple(dict.fromkeys([target.search_path or str(app_dir), str(app_dir), str(working_dir)])),
            modules=(target.module,),
            env={**(_FRESH_BYTECODE if options["reload"] else {}), **runtime_env["env_vars"]},
        ),
        http=_http(options),
        machine=declared({name: options[name] for name in _MACHINE}),
        watch=(Path(target.search_path) if target.search_path else app_dir) if options["reload"] else None,
    )


def _http(options: Mapping[str, Any]) -> HTTPOptions:
    more = dict(_http_option(each) for each in options["http"])
    for name in ("host", "port"):
        if name in more:
            raise click.ClickException(f"Give the {name} as --{name}.")
    host = options["host"] or read_settings().default_http_host
    return http_options({"host": host, "port": options["port"], **more})


def _http_option(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key or not value:
        raise click.ClickException(f"Invalid HTTP option '{key}', must be of the form '<key>=<val>'.")
    return key, value


def _argument(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if not key or not value:
        raise click.ClickException(f"Invalid application argument '{text}', must be of the form '<key>=<val>'.")
    return key, value


def _runtime_env(file: str | None, text: str | None) -> dict[str, Any]:
    if text is not None and file is not None:
        raise click.ClickException("Give --runtime-env or --runtime-env-json, not both.")
    where = file or "--runtime-env-json"
    try:
        content = Path(file).read_text(encoding="utf-8") if file is not None else text or "{}"
        value = _parse_yaml(content) if file is not None and not file.endswith(".json") else json.loads(content)
    except ValueError as error:
        raise click.ClickException(f"{where} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise click.ClickException(f"{where} holds {value!r}; expected a mapping with 'env_vars' and 'working_dir'.")
    for key in value:
        if key not in ("env_vars", "working_dir"):
            raise click.ClickException(
                f"{where} has the key '{key}'; on this machine 'env_vars' and 'working_dir' can be set. "
                "Install packages into the environment that runs salver."
            )
    if not isinstance(value.get("working_dir") or "", str):
        raise click.ClickException(f"{where} has {value['working_dir']!r} for 'working_dir'; expected a path.")
    return {**value, "env_vars": _env_vars(value.get("env_vars") or {}, where)}


def _env_vars(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str | int | float) for each in value.values()):
        raise click.ClickException(f"{where} has {value!r} for 'env_vars'; expected a mapping of names to texts.")
    return {str(key): str(each) for key, each in value.items()}


def _parse_yaml(content: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Run:
    """One `salver run`, from start to stop."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        # Every task is awaited where it was started, which raises its error there.
        self._tasks = Tasks(on_error=lambda _name, _error: None)
        self._display: Display

    async def until_stopped(self) -> int:
        """Run, and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop_or_hurry)
        order = self._order
        with _make_display(order.import_path, order.name) as self._display:
            try:
                launching = Instance.launch(order.http, self._display.report, order.machine)
                instance = await self._unless_stopped(launching)
            except SalverError as error:
                self._display.fail(str(error))
                return 1
            if instance is None:
                return 130
            try:
                return await self._serve(instance)
            finally:
                await self._end(instance)

    async def _serve(self, instance: Instance) -> int:
        self._display.started(instance.http_url)
        if not await self._deploy(instance) and self._order.watch is None:
            return 130 if self._stop.is_set() else 1
        waits = {
            "stop": self._tasks.start(self._stop.wait(), name="stop"),
            "reload": self._tasks.start(self._reload(instance), name="reload"),
        }
        try:
            await asyncio.wait({*waits.values(), instance.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits.values():
                each.cancel()
        if self._stop.is_set():
            return 0
        if instance.ended.done():
            self._display.fail(instance.ended.result())
        elif waits["reload"].done():
            waits["reload"].result()
        return 1

    async def _deploy(self, instance: Instance) -> bool:
        try:
            await self._unless_stopped(self._deploy_and_wait(instance))
        except SalverError as error:
            self._display.fail(str(error))
            return False
        if self._stop.is_set():
            return False
        self._display.ready(instance.http_url, self._order.route_prefix)
        return True

    async def _deploy_and_wait(self, instance: Instance) -> None:
        order = self._order
        await instance.build_and_deploy(
            order.import_path,
            order.arguments,
            name=order.name,
            route_prefix=order.route_prefix,
            preload=order.preload,
        )
        await instance.until_running(order.name, on_status=self._display.status)

    async def _reload(self, instance: Instance) -> None:
        """Deploy again at each change of a file, for ever; without --reload only wait."""
        instance.watch_status(self._display.status)
        if self._order.watch is None:
            await self._stop.wait()
            return
        from watchfiles import PythonFilter, awatch

        async for changes in awatch(self._order.watch, watch_filter=PythonFilter(), stop_event=self._stop):
            self._display.reloading({path for _, path in changes})
            await self._deploy(instance)

    async def _end(self, instance: Instance) -> None:
        self._display.stopping()
        stopping = self._tasks.start(instance.stop(drain=True), name="end")
        hurry = self._tasks.start(self._hurry.wait(), name="hurry")
        await asyncio.wait([stopping, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not stopping.done():
            self._display.hurrying()
            await instance.abandon()
        await stopping

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what the work returns, or None as soon as someone asked to stop."""
        task = self._tasks.start(work, name="work")
        stop = self._tasks.start(self._stop.wait(), name="stop")
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            result: T = task.result()
            return result
        task.cancel()
        await asyncio.wait([task])
        return None

    def _stop_or_hurry(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()


def _make_display(import_path: str, name: str) -> Display:
    """Return the display that suits standard output."""
    if not sys.stdout.isatty():
        return Display(import_path, name)
    # rich takes a while to import, and pipes need none of it.
    from salver.cli.live import LiveDisplay

    return LiveDisplay(import_path, name)
