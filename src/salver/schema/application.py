"""A built application: everything the controller needs to run it, and nothing that needs the user's modules."""

from typing import Any

import msgspec

from salver.schema.ids import DEFAULT_APP_NAME, DeploymentID
from salver.schema.options import Options


class ImportedCode(msgspec.Struct, frozen=True, tag="imported"):
    """Code that has an import path; it is imported, never pickled."""

    module: str
    qualname: str


class PickledCode(msgspec.Struct, frozen=True, tag="pickled"):
    """Code that exists only in a session or a script; `digest` names its blob in the preload."""

    digest: str


CodeRef = ImportedCode | PickledCode


class Preload(msgspec.Struct, frozen=True):
    """What a process needs in memory before user code can run; equal preloads share a zygote.

    Attributes:
        working_dir: Directory the code runs in.
        search_path: Entries of `sys.path`, first ones first.
        modules: Modules to import, in order.
        blobs: Pickled code by digest.
        env: Environment variables the code sees.
    """

    working_dir: str
    search_path: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    blobs: dict[str, bytes] = {}
    env: dict[str, str] = {}


class RouterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How the callers of a deployment choose among its replicas.

    Attributes:
        policy: One of Salver's own; "" where the user's code chooses.
        code: The user's class, which callers that do not have it load.
        blob: It, pickled, where it has no import path.
        search_path: Where its module is found.
        kwargs: The policy's arguments, or those of the class's `initialize_state`.
    """

    policy: str = ""
    code: CodeRef | None = None
    blob: bytes = b""
    search_path: tuple[str, ...] = ()
    kwargs: dict[str, Any] = {}


class DeploymentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment of a built application.

    Attributes:
        arguments: Pickled `(args, kwargs)` of the constructor, handles in place of bound applications.
        router: How its callers choose among its replicas; None for two choices.
    """

    name: str
    code: CodeRef
    arguments: bytes
    options: Options
    router: RouterSpec | None = None


class ApplicationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A built application.

    Attributes:
        ingress: Name of the deployment that HTTP requests reach.
        version: Random for each build; replicas of other versions are replaced.
        route_prefix: Where HTTP requests find it; None for handles only.
    """

    name: str = DEFAULT_APP_NAME
    route_prefix: str | None = "/"
    ingress: str
    version: str
    deployments: tuple[DeploymentSpec, ...]
    preload: Preload
    warnings: tuple[str, ...] = ()

    def deployment_id(self, name: str) -> DeploymentID:
        """Return the id of one of this application's deployments."""
        return DeploymentID(name, self.name)
