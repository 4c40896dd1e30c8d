"""The types and shapes in signatures are checked while these tests run: see conftest.py."""

import jax.numpy as jnp
import jaxtyping
import pytest
from conftest import CHECKED
from test_floors import MODULES

import lethax


def test_a_shape_that_would_be_broadcast_in_silence_is_found() -> None:
    """Labels [n, 1] beside logits [n, way] are [n, n]."""
    with pytest.raises(jaxtyping.TypeCheckError, match="labels"):
        lethax.CrossEntropy().score(jnp.zeros((3, 2)), jnp.zeros((3, 1), int))


def test_a_part_that_is_no_net_is_found() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="net"):
        lethax.MAML(lethax.SGD())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHECKED)
def test_what_is_checked_is_there(name: str) -> None:
    assert f"lethax.{name}" in MODULES
