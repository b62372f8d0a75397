"""Wrong input gets one clear line and a non-zero exit: never a hang, never a bare traceback of ours."""

import socket

import pytest

from tests.system.serving import Place

APP = """
    import threading
    import salver as serve

    @serve.deployment
    class Fine:
        def __call__(self): return "fine"

    class Plain: ...

    @serve.deployment
    class Raises:
        def __init__(self): raise RuntimeError("no model file here")

    @serve.deployment(ray_actor_options={"num_gpus": 2})
    class NeedsGpus:
        def __call__(self): return "gpu"

    @serve.deployment
    class Takes:
        def __init__(self, *args, **kwargs): ...

    app = Fine.bind()
    unbound = Fine
    plain = Plain()
    raises = Raises.bind()
    gpus = NeedsGpus.bind()

    def unpicklable(args): return Takes.bind(1, lock=threading.Lock())

    def cycle(args):
        holder = []
        inner = Takes.bind(holder)
        holder.append(inner)
        return inner

    def two(a, b): ...
    def wrong(args): return 42
    def option(args): return Fine.options(num_replica=2).bind()
    def value(args): return Fine.options(num_replicas=0).bind()
"""

CASES = [
    ("nowhere:app", [], "No module named 'nowhere'"),
    ("nowhere.py:app", [], "File 'nowhere.py' does not exist"),
    ("broken", [], "is not an import path"),
    ("wrong_input:ap", [], "has no attribute 'ap'. Did you mean 'app'?"),
    ("wrong_input:plain", [], "is not an application but a Plain"),
    ("wrong_input:unbound", [], "is a deployment that is not bound"),
    ("wrong_input:raises", [], "RuntimeError: no model file here"),
    ("wrong_input:gpus", ["--num-gpus", "1"], "asks for 1 replica × 2 GPU"),
    ("wrong_input:unpicklable", [], "argument 'lock' of .bind() (lock) cannot be pickled"),
    ("wrong_input:cycle", [], "has a cycle: Takes → Takes"),
    ("wrong_input:two", [], "should take exactly one parameter"),
    ("wrong_input:wrong", [], "returned a int"),
    ("wrong_input:option", [], "Did you mean 'num_replicas'?"),
    ("wrong_input:value", [], "Option 'num_replicas' got 0"),
    ("wrong_input:app", ["key"], "Invalid application argument 'key'"),
    ("wrong_input:app", ["key=value"], "bound already"),
    ("wrong_input:app", ["--route-prefix", "x"], "must start with a forward slash"),
    ("wrong_input:app", ["--runtime-env-json", "{"], "--runtime-env-json cannot be read"),
    ("wrong_input:app", ["--app-dir", "/nowhere"], "is not a directory"),
    ("syntax:app", [], "SyntaxError"),
    ("exits:app", [], "SystemExit: 7"),
]


@pytest.mark.parametrize(("target", "arguments", "expected"), CASES, ids=[f"{c[0]} {' '.join(c[1])}" for c in CASES])
def test_wrong_input_is_one_clear_message(place: Place, target: str, arguments: list[str], expected: str) -> None:
    place.write("wrong_input.py", APP)
    place.write("syntax.py", "app = (")
    place.write("exits.py", "import sys\nsys.exit(7)")
    with place.run(target, *arguments) as run:
        assert run.exit_code() != 0
        assert expected in run.output
        assert "salver/" not in run.output.replace("salver/tests", "")
    assert place.leftovers() == []


def test_a_constructor_that_raises_is_tried_three_times_for_each_replica(place: Place) -> None:
    place.write("wrong_input.py", APP)
    with place.run("wrong_input:raises") as run:
        assert run.exit_code() == 1
        assert "failed to start 3 times in a row" in run.output


def test_a_port_in_use_names_who_has_it(place: Place) -> None:
    place.write("wrong_input.py", APP)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with place.run("wrong_input:app", port=port) as run:
            assert run.exit_code() == 1
            assert f"Port {port} on 127.0.0.1 is in use by " in run.output
            assert "(pid " in run.output
    assert place.leftovers() == []


def test_duplicate_names_get_a_suffix_and_a_warning(place: Place) -> None:
    place.write(
        "twice.py",
        """
        import salver as serve

        @serve.deployment
        class Part:
            def __init__(self, name): self.name = name
            def __call__(self): return self.name

        @serve.deployment
        class Whole:
            def __init__(self, *parts): self.parts = parts
            async def __call__(self): return [await part.remote() for part in self.parts]

        shared = Part.bind("shared")
        app = Whole.bind(Part.bind("a"), Part.bind("b"), shared, shared)
        """,
    )
    with place.run("twice:app") as run:
        from tests.system.serving import get

        assert get(run.url()).json() == ["a", "b", "shared", "shared"]
        run.wait_for("Two deployments are named 'Part'; one of them is called 'Part_1'")
        assert len(run.named("Part")) == 3
