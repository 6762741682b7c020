"""What integers are modulo a number: ``6 * q + 3 * kv`` is a multiple of 3 wherever it is.

A congruence holds on all boxes alike, so it costs a few operations for each node, not for each box.
It is arithmetic on whole numbers; where a result may wrap around by a multiple of 2**32, only the
common divisor with that is kept. Source: P. Granger, Static analysis of arithmetical
congruences, 1989.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

from attnc.ir import BinaryOp, UnaryOp

_WRAP = 1 << 32


class Congruence(NamedTuple):
    """All values are ``offset`` modulo ``stride``; a stride of 0 is one value, 1 says nothing."""

    stride: int
    offset: int

    def wrapping(self) -> Congruence:
        """What is left of it where the value may wrap around in 32 or 64 bits."""
        return _reduced(gcd(self.stride, _WRAP), self.offset)


ANY = Congruence(1, 0)


def exactly(value: int) -> Congruence:
    """The congruence of a constant."""
    return Congruence(0, value)


def either(x: Congruence, y: Congruence) -> Congruence:
    """What holds of a value that is one of two."""
    return _reduced(gcd(x.stride, y.stride, x.offset - y.offset), x.offset)


def unary(op: UnaryOp, x: Congruence) -> Congruence:
    """That of ``op(x)``, without wrap-around."""
    match op:
        case UnaryOp.NEG:
            return _reduced(x.stride, -x.offset)
        case UnaryOp.NOT:
            return _reduced(x.stride, -x.offset - 1)
        case UnaryOp.ABS:
            return either(x, _reduced(x.stride, -x.offset))
        case _:
            return ANY


def binary(op: BinaryOp, x: Congruence, y: Congruence) -> Congruence:
    """That of ``x op y``, without wrap-around."""
    match op:
        case BinaryOp.ADD:
            return _reduced(gcd(x.stride, y.stride), x.offset + y.offset)
        case BinaryOp.SUB:
            return _reduced(gcd(x.stride, y.stride), x.offset - y.offset)
        case BinaryOp.MUL:
            # (s i + o) (t j + p) = s t i j + s p i + t o j + o p
            stride = gcd(x.stride * y.stride, x.stride * y.offset, y.stride * x.offset)
            return _reduced(stride, x.offset * y.offset)
        case BinaryOp.SHL if y.stride == 0 and 0 <= y.offset < 31:
            return binary(BinaryOp.MUL, x, exactly(1 << y.offset))
        case BinaryOp.FLOORDIV if y.stride == 0 and y.offset > 0 and x.stride % y.offset == 0:
            # (d s i + o) // d = s i + o // d
            return _reduced(x.stride // y.offset, x.offset // y.offset)
        case BinaryOp.MOD if y.stride == 0 and y.offset > 0:
            stride = gcd(x.stride, y.offset)
            # A remainder below its own stride is one value.
            return (
                exactly(x.offset % y.offset) if stride == y.offset else _reduced(stride, x.offset)
            )
        case BinaryOp.MIN | BinaryOp.MAX:
            return either(x, y)
        case _:
            return ANY


def may_be_equal(x: Congruence, y: Congruence) -> bool:
    """Whether some value is in both."""
    stride, distance = gcd(x.stride, y.stride), x.offset - y.offset
    return distance % stride == 0 if stride else distance == 0


def _reduced(stride: int, offset: int) -> Congruence:
    return Congruence(stride, offset % stride if stride else offset)
