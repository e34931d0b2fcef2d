"""Refusing values: what each check lets through, and what its message says."""

from __future__ import annotations

from math import inf, nan
from typing import Any, Literal

import numpy as np
import pytest
import torch

from visionpe.checks import (
    check_choice,
    check_count,
    check_counts,
    check_flag,
    check_number,
    check_numbers,
    check_pair,
    shown,
)
from visionpe.ranges import check_factory, check_table, draw_table


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.25), np.int64(1)])
def test_numbers(value: Any) -> None:
    assert check_number("x", value, 0, 1) == value


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (-1, ValueError, "x=-1 must be 0 or more; allowed: 0 to 1"),
        (2, ValueError, "x=2 must be less; allowed: 0 to 1"),
        (nan, ValueError, "x=nan must be finite; allowed: 0 to 1"),
        (inf, ValueError, "x=inf must be finite; allowed: 0 to 1"),
        (10**400, ValueError, "x=1000.*… must be finite"),
        (True, TypeError, "x=True is no number; allowed: 0 to 1"),
        ("1", TypeError, "x='1' is no number"),
        (None, TypeError, "x=None is no number"),
        ([1], TypeError, r"x=\[1\] is no number"),
    ],
)
def test_numbers_refused(value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        check_number("x", value, 0, 1)
    with pytest.raises(kind):
        check_numbers("x", (0.5, value), 2, 0, 1)


def test_ends_of_a_range() -> None:
    for value in (0, 1):
        with pytest.raises(ValueError, match=f"x={value} must be .*; allowed: above 0 to below 1"):
            check_number("x", value, above=0, below=1)
    assert check_number("x", 0, 0, below=1) == 0
    with pytest.raises(ValueError, match=r"x=0 must be positive; allowed: 0\.001 to 2"):
        check_number("x", 0, 1e-3, 2)
    with pytest.raises(ValueError, match=r"x=nan is no fraction; allowed: finite ones"):
        check_number("x", nan, kind="fraction")


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (0, ValueError, "n=0 must be positive and whole; allowed: 1 to 9"),
        (10, ValueError, "n=10 must be less; allowed: 1 to 9"),
        (0.5, ValueError, r"n=0\.5 must be positive and whole"),
        (nan, ValueError, "n=nan must be positive and whole"),
        (True, TypeError, "n=True is no whole number"),
        ("3", TypeError, "n='3' is no whole number"),
    ],
)
def test_counts_refused(value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        check_count("n", value, 1, 9)
    with pytest.raises(kind):
        check_counts("n", (1, value), None, 1, 9)
    with pytest.raises(kind, match=r"n=.* is no size; allowed: a whole number or"):
        check_pair("n", value, 1, 9)


def test_counts() -> None:
    assert check_counts("n", [1, np.int64(2)], 2) == (1, 2)
    assert check_counts("n", torch.Size((3, 4)), (2, 3)) == (3, 4)
    assert check_pair("n", 3) == check_pair("n", (3, 3)) == (3, 3)
    for values, message in (((1, 2, 3), "must be 2 numbers"), ((), "must be 2 numbers"), ("12", "is no sequence")):
        with pytest.raises((TypeError, ValueError), match=message):
            check_counts("n", values, 2)
    assert check_count("n", np.int32(3)) == 3


def test_flags_and_choices() -> None:
    assert check_flag("f", np.bool_(True)) is check_flag("f", 1) is True
    for value in ("no", None, 2, 0.0, nan, [True]):
        with pytest.raises(TypeError, match=r"f=.* is no flag; allowed: True, False"):
            check_flag("f", value)
    check_choice("c", 45, Literal[45, 90])
    for value in ("b", None, ["a"], torch.ones(2), nan, True):
        with pytest.raises(ValueError, match=r"c=.* is unknown; allowed: a, 1"):
            check_choice("c", value, ("a", 1))


def test_messages_stay_short() -> None:
    assert len(shown(list(range(10**5)))) <= 80


def test_where_and_what_parameters_are() -> None:
    check_factory("cpu", torch.bfloat16)
    for device, dtype, kind in (
        (None, "float32", TypeError),
        (None, torch.long, ValueError),
        ("gpu", None, ValueError),
    ):
        with pytest.raises(kind, match=r"(device|dtype)=.*allowed:"):
            check_factory(device, dtype)


def test_tables() -> None:
    with pytest.raises(ValueError, match=r"size=9 makes a table of \d+ entries"):
        check_table("size", 9, 2**20, 2**20)
    table = torch.ones(3, 3)
    draw_table(table, 0)
    assert not table.any()
    draw_table(table, 0.5)
    assert table.std() > 0.1
