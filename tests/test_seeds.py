"""Derived seeds."""

from polyhead.seeds import derive_seed


def test_parts_are_kept_apart() -> None:
    seeds = {derive_seed(*parts) for parts in ((1, 23), (12, 3), ("1", "23"), (123,), ("123",), (1, 2, 3))}
    assert len(seeds) == 6


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed("order", 0, "a") == 3_600_741_022_124_415_552
    assert all(0 <= derive_seed(index) < 2**63 for index in range(100))
