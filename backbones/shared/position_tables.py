"""The shape of a position table that a file holds as a mere sequence of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, prod

from visionpe.utils.errors import MisfitError

Size = tuple[int, int]  # height, width
# A rectangle that is longer than this many times its width is no likely shape of a table.
LONGEST = 4


def file_slots(class_tokens: int, reg_tokens: int) -> tuple[int, ...]:
    """Prefix slots that the table of a file with so many prefix tokens may have, most likely first.

    A table has a slot for every prefix token, for the class token alone, or for none.
    """
    return tuple(dict.fromkeys((class_tokens + reg_tokens, class_tokens, 0)))


def table_shape(
    tokens: int, slots: Sequence[int], known: Sequence[Sequence[Size]], *, own: Size, keyword: str, sure: Sequence[int]
) -> tuple[int, Size]:
    """Prefix slots, and height and width in tokens, of a table of so many entries.

    Known sizes go first. A square is taken where none fits, unless a rectangle with other prefix slots is as likely:
    15 x 15 is 14 x 16 and a class slot.

    Args:
        tokens: Entries of the table.
        slots: How many of them may be of prefix tokens, most likely first.
        known: Groups of sizes in tokens, surest first: the first group with one that fits decides.
        own: Size of the model's map, for messages.
        keyword: What settles the matter, for messages.
        sure: Prefix slots with which a square needs no further proof.

    Raises:
        RuntimeError: If nothing fits, or several do alike.
    """
    for sizes in known:
        fits = list(dict.fromkeys((n, tuple(size)) for size in sizes for n in slots if prod(size) + n == tokens))
        if len(fits) > 1:
            raise _ambiguous(tokens, fits, keyword)
        if fits:
            return fits[0][0], (fits[0][1][0], fits[0][1][1])
    squares = [(n, (isqrt(tokens - n),) * 2) for n in slots if tokens > n and isqrt(tokens - n) ** 2 == tokens - n]
    if not squares:
        raise MisfitError(
            f"pos_embed of {tokens} tokens is neither a square nor {own[0]} x {own[1]} with "
            f"{' or '.join(map(str, sorted(slots)))} prefix slots; if it has another shape, tell it by {keyword}"
        )
    rivals = (
        [] if squares[0][0] in sure else [(n, size) for n in slots if n != squares[0][0] for size in _near(tokens - n)]
    )
    if len(squares) > 1 or rivals:
        raise _ambiguous(tokens, [*squares, *rivals], keyword)
    return squares[0]


def _near(count: int) -> list[Size]:
    """The rectangle of so many tokens that is nearest to a square, if it is not too long."""
    side = next((n for n in range(isqrt(max(count, 0)), 1, -1) if count % n == 0), 0)
    return [(side, count // side)] if side and count <= LONGEST * side * side else []


def _ambiguous(tokens: int, fits: Sequence[tuple[int, Sequence[int]]], keyword: str) -> MisfitError:
    readings = dict.fromkeys(f"{size[0]} x {size[1]} with {n} prefix slots" for n, size in fits)
    return MisfitError(f"pos_embed of {tokens} tokens may be {' or '.join(readings)}; tell which by {keyword}")
