"""What is said of a failure holds its kind and a remedy, and nothing that came with it."""

import errno

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead import errors
from polyhead.errors import PolyheadError, UpdateError
from polyhead.federation.failure import describe_failure

KINDS: list[type[Exception]] = [
    *(OSError, PermissionError, MemoryError, torch.OutOfMemoryError, RuntimeError, KeyError, ValueError, IndexError),
    *(UnicodeError, ArithmeticError, AssertionError, StopIteration, EOFError, Exception),
    *(getattr(errors, name) for name in errors.__all__ if name != "UpdateError"),
]


@given(st.sampled_from(KINDS), st.text("0123456789/", min_size=4).map(lambda text: f"patient {text}"))
def test_no_text_of_an_error_leaves_the_house(kind: type[Exception], text: str) -> None:
    described = describe_failure(kind(text))
    assert text not in described
    assert "patient" not in described
    assert described.endswith(".")
    assert len(described) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_cause_and_a_remedy_are_named(kind: type[Exception]) -> None:
    assert any(word in describe_failure(kind("x")) for word in ("run.log", "polyhead check", "training.batch_size"))


def test_the_number_of_a_system_error_is_told_by_name() -> None:
    assert "(ENOSPC)" in describe_failure(OSError(errno.ENOSPC, "x", "/a/b"))
    assert "(unknown)" in describe_failure(OSError(99_999, "x"))


def test_what_a_server_may_not_ask_for_is_told_in_full() -> None:
    assert describe_failure(UpdateError("head.weight is not shared.")) == "head.weight is not shared."


def test_only_what_no_person_wrote_a_text_for_is_asked_to_be_reported() -> None:
    assert "report" in describe_failure(ZeroDivisionError("x"))
    assert "report" not in describe_failure(PolyheadError("x"))
