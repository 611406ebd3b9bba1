"""Damage to bytes: what disks, transfers, editors and careless scripts do to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

INTERESTING = (
    b"\0", b"\xff", b"\n", b"\r\n", b"\x1a", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3\x28",
    b"\xf4\x90\x80\x80", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, b'"', b"{", b"[", b"\\u",
    b"GUTOKENS", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0",
    "\u2028\u202e\U0001f600".encode(),
)  # fmt: skip

Operation = Callable[[bytearray, Random, Sequence[bytes]], bytes]


def damage(content: bytes, draw: Random, others: Sequence[bytes] = ()) -> bytes:
    """`content` after one to three accidents; `others` are files that parts may come from."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = bytes(draw.choice(OPERATIONS)(bytearray(content), draw, others or (content,)))
    return content


def _span(content: bytearray, draw: Random) -> tuple[int, int]:
    """A stretch of it: mostly short, sometimes long."""
    start = draw.randint(0, len(content))
    most = draw.choice((1, 4, 16, 256, 4096, len(content) + 1))
    return start, min(len(content), start + draw.randint(1, most))


def _flip(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    for _ in range(draw.choice((1, 1, 1, 8))):
        if content:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return content


def _overwrite(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    start, _ = _span(content, draw)
    value = draw.choice(INTERESTING)
    content[start : start + len(value)] = value
    return content


def _truncate(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    keep = draw.choice((0, 1, len(content) - 1, draw.randint(0, len(content))))
    return content[: max(0, keep)]


def _insert(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    start, _ = _span(content, draw)
    content[start:start] = draw.choice((draw.randbytes(draw.randint(1, 64)),
                                        draw.choice(INTERESTING)))  # fmt: skip
    return content


def _append(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    return content + draw.choice((draw.randbytes(draw.randint(1, 64)), bytes(draw.randint(1, 64)),
                                  content, draw.choice(INTERESTING)))  # fmt: skip


def _remove(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    start, stop = _span(content, draw)
    del content[start:stop]
    return content


def _duplicate(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    start, stop = _span(content, draw)
    content[stop:stop] = content[start:stop]
    return content


def _blank(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    start, stop = _span(content, draw)
    content[start:stop] = draw.choice((b"\0", b"\xff")) * (stop - start)
    return content


def _swap(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    length = draw.choice((1, 16, 512, 4096))
    a, b = sorted(draw.randint(0, len(content)) for _ in range(2))
    if b + length <= len(content) and a + length <= b:
        content[a : a + length], content[b : b + length] = (
            content[b : b + length],
            content[a : a + length],
        )
    return content


def _splice(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    other = draw.choice(others)
    return content[: _span(content, draw)[0]] + other[draw.randint(0, len(other)) :]


def _line_ends(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    return content.replace(b"\n", draw.choice((b"\r\n", b"\r", b"", b"\n\n", b"\0\n")))


def _mark(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    mark = draw.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
    return mark + content


def _recode(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-32", "latin-1")), "replace")


def _other_digit(content: bytearray, draw: Random, others: Sequence[bytes]) -> bytes:
    digits = [place for place, byte in enumerate(content[:65536]) if 0x30 <= byte <= 0x39]
    if digits:
        content[draw.choice(digits)] = draw.randrange(0x30, 0x3A)
    return content


OPERATIONS: tuple[Operation, ...] = (
    _flip, _flip, _overwrite, _truncate, _insert, _append, _remove, _duplicate, _blank, _swap,
    _splice, _line_ends, _mark, _recode, _other_digit,
)  # fmt: skip
