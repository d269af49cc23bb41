"""A random order of n things of which any element can be computed alone, whatever n is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_SHIFT_A, _SHIFT_B, _SHIFT_C = np.uint64(30), np.uint64(27), np.uint64(31)
_FACTOR_A, _FACTOR_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Return 64 well mixed bits for each value, by SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    z = (values ^ key) * _FACTOR_B + key
    z = (z ^ (z >> _SHIFT_A)) * _FACTOR_A
    z = (z ^ (z >> _SHIFT_B)) * _FACTOR_B
    return z ^ (z >> _SHIFT_C)


def keys(*seed: int, count: int = _ROUNDS) -> NDArray[np.uint64]:
    """Return independent keys (count,) from whole numbers that are not negative."""
    return np.random.SeedSequence(seed).generate_state(count, np.uint64).astype(np.uint64)


def uniform(positions: NDArray[np.int64], key: np.uint64) -> NDArray[np.float64]:
    """Return one number in [0, 1) for each position, a function of position and key alone."""
    return (mix(positions.astype(np.uint64), key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Permutation:
    """A keyed pseudo-random permutation of range(n), in memory that does not depend on n.

    A Feistel network permutes the numbers of as few bits as hold n; a result that is not below n goes through it again
    until one is (cycle walking: Black and Rogaway 2002), twice on average at most.

    Args:
        size: n, at least 1.
        seed: whole numbers that are not negative; they decide the order.
    """

    def __init__(self, size: int, *seed: int) -> None:
        self.size = size
        bits = max((size - 1).bit_length(), 2)
        self._right_bits = np.uint64(bits // 2)
        self._left_bits = np.uint64(bits - bits // 2)
        self._right_mask = np.uint64((1 << (bits // 2)) - 1)
        self._left_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = keys(*seed)

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what stands at places of the order, int64 (n,)."""
        values = self._network(places.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while outside.size:
            values[outside] = self._network(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._right_bits, values & self._right_mask
        for key_left, key_right in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = left ^ (mix(right, key_left) & self._left_mask)
            right = right ^ (mix(left, key_right) & self._right_mask)
        return (left << self._right_bits) | right
