"""How encodings are written: ``"rope_mixed(theta=100)+lape(ape)"``, a dict, or a list of those."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from visionpe.utils.parsing import literal

Spec: TypeAlias = "str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]"

ALLOWED = "allowed: 'a', 'a+b', 'a(b)', 'a(option=value)', 'a(b, option=value)'"
_OPEN, _CLOSE = "([{", ")]}"


def _split(text: str, mark: str) -> Iterator[str]:
    """Split at ``mark`` where it stands outside of brackets and quotation marks.

    Raises:
        ValueError: If brackets or quotation marks do not match.
    """
    awaited, quote, start = "", "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _OPEN:
            awaited += _CLOSE[_OPEN.index(char)]
        elif char in _CLOSE:
            if awaited[-1:] != char:
                raise ValueError("its parentheses do not match")
            awaited = awaited[:-1]
        elif char == mark and not awaited:
            yield text[start:i]
            start = i + 1
    if awaited or quote:
        raise ValueError("a quotation mark is open" if quote else "its parentheses do not match")
    yield text[start:]


def _options(inside: str) -> dict[str, Any]:
    """``"ape, rate=0.5"`` to ``{"over": "ape", "rate": 0.5}``; a value that is no Python literal is text."""
    options: dict[str, Any] = {}
    for i, argument in enumerate(_split(inside, ",") if inside.strip() else ()):
        named = re.fullmatch(r"\s*(\w+)\s*=(.*)", argument, re.DOTALL)
        key, value = (named[1], literal(named[2].strip())) if named else ("over", argument.strip())
        if not named and (i or not value):
            raise ValueError(f"{value!r} is not option=value")
        if key in options or key == "name":
            raise ValueError(f"{key!r} is given twice" if key in options else "'name' stands before the parentheses")
        options[key] = value
    return options


def _parse_string(spec: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        pairs = []
        for part in _split(spec, "+"):
            match = re.fullmatch(r"([^()]*)(?:\((.*)\)\s*)?", part, re.DOTALL)
            if not match:
                raise ValueError("its parentheses do not match")
            if not match[1].strip():
                raise ValueError("a name is missing" + (" beside a '+'" if "+" in spec else ""))
            pairs.append((match[1].strip(), _options(match[2] or "")))
    except ValueError as error:
        raise ValueError(f"pos_encoding={spec!r}: {error}; {ALLOWED}") from None
    return pairs


def parse_spec(spec: Spec) -> list[tuple[str, dict[str, Any]]]:
    """Normalise a specification to (name, options) pairs.

    Args:
        spec: A string such as ``"rope_mixed"``, ``"rope_mixed+ape"``, ``"irpe(mode='bias', on='k')"``; a dict,
            ``{"name": "rope_mixed", "theta": 10}``; or a list of those. Values in a string are Python
            literals, or text: ``"rope_mixed(theta=10, policy=yarn(0.25, 1)+temperature)"``. ``"lape(ape)"``, one
            encoding or wrapper over another, is short for ``{"name": "lape", "over": "ape"}``; options follow,
            ``"dropped(ape, rate=0.5)"``.

    Raises:
        ValueError, TypeError: If it is none of these.
    """
    if isinstance(spec, str):
        return _parse_string(spec)
    if isinstance(spec, Mapping):
        if "name" not in spec:
            raise ValueError(f"pos_encoding={dict(spec)!r} lacks the key 'name'")
        if not all(isinstance(text, str) for text in (spec["name"], *spec)):
            raise TypeError(f"pos_encoding={dict(spec)!r}: its name and the names of options must be text")
        return [(spec["name"], {key: value for key, value in spec.items() if key != "name"})]
    if isinstance(spec, Sequence) and spec and not isinstance(spec, bytes | bytearray):
        return [pair for part in spec for pair in parse_spec(part)]
    raise TypeError(f"pos_encoding={spec!r}: a name, 'a+b', a dict with 'name', or a list of those is allowed")
