"""Handles themselves, and the session that they call through."""

import pickle
from copy import copy
from typing import Any

import pytest

from salver.handle import DeploymentHandle
from salver.handle import session as session_module
from salver.handle.session import current_session
from salver.lib.loading import loading, set_loading
from salver.schema.errors import (
    SalverError,
)
from tests.unit.handle.worlds import World


def test_a_handle_is_the_same_after_pickling() -> None:
    handle: DeploymentHandle[Any] = DeploymentHandle("model", "shop").options(method_name="predict")
    again = pickle.loads(pickle.dumps(handle))
    assert again == handle
    assert hash(again) == hash(handle)
    assert copy(handle) == handle
    assert (again.deployment_name, again.app_name) == ("model", "shop")
    assert repr(again) == "DeploymentHandle(deployment='model')"


def test_handles_that_call_differently_are_not_equal() -> None:
    handle: DeploymentHandle[Any] = DeploymentHandle("model")
    assert handle.predict != handle
    assert handle != DeploymentHandle("model", "other")
    assert handle.options(multiplexed_model_id="a") != handle


def test_an_unknown_option_of_a_handle_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'nope'"):
        DeploymentHandle("model").options(nope=1)  # type: ignore[call-overload]


def test_a_handle_has_no_special_methods_by_name() -> None:
    assert not hasattr(DeploymentHandle("model"), "__len__")


def test_without_a_session_a_call_says_what_to_do() -> None:
    handle: DeploymentHandle[Any] = DeploymentHandle("model")
    assert not handle.is_initialized
    with pytest.raises(SalverError, match=r"Nothing runs here: call serve\.run"):
        handle.remote()


def test_while_a_module_is_imported_a_call_says_so() -> None:
    set_loading("main.py")
    try:
        assert loading() == "main.py"
        with pytest.raises(SalverError, match=r"while main.py was being imported.*if __name__ == \"__main__\":"):
            current_session()
    finally:
        set_loading(None)


async def test_a_closed_session_is_none(world: World) -> None:
    session = current_session()
    assert DeploymentHandle("model").is_initialized
    session.closed = True
    assert session_module.find_session() is None


class Model:
    def predict(self, number: int) -> int:
        return number


def test_a_method_of_the_class_names_the_method_to_call() -> None:
    handle: DeploymentHandle[Model] = DeploymentHandle("model")
    assert handle[Model.predict] == handle.predict
    assert handle.options(session_id="a")[Model.predict] == handle.options(session_id="a").predict


@pytest.mark.parametrize("wrong", ["predict", Model, 3], ids=["name", "class", "number"])
def test_what_is_no_method_names_none(wrong: Any) -> None:
    handle: DeploymentHandle[Model] = DeploymentHandle("model")
    with pytest.raises(TypeError, match=r"as in handle\[Model.predict\]; got"):
        handle[wrong]
