"""Sines, cosines and angles in single precision, as polynomials that processors compute for several pixels at once.

The coefficients are near-minimax fits, found by reweighted least squares. The errors stated below are absolute and
checked by tests. This precision is enough, because the results become one of 256 grey levels.
"""

from __future__ import annotations

import numpy as np

from dtn_det.system.compiled import compiled

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_PI, _HALF_PI, _INVERSE_PI = np.float32(np.pi), np.float32(np.pi / 2), np.float32(1 / np.pi)
# Pi is the sum of three parts. The first two have so few bits that their products with integers up to 4,000 are exact.
_PI_1, _PI_2, _PI_3 = np.float32(3.140625), np.float32(0.0009675025939941406), np.float32(1.5099579897537296e-07)

_SIN_0, _SIN_1, _SIN_2, _SIN_3, _SIN_4 = (
    np.float32(value) for value in (0.9999999957, -0.1666665799, 0.008333051063, -0.0001980907528, 2.605224899e-06)
)
_COS_0, _COS_1, _COS_2, _COS_3, _COS_4, _COS_5 = (
    np.float32(value)
    for value in (0.9999999998, -0.4999999936, 0.04166663626, -0.00138883614, 2.476016134e-05, -2.605149509e-07)
)
_ATAN_0, _ATAN_1, _ATAN_2, _ATAN_3, _ATAN_4, _ATAN_5, _ATAN_6, _ATAN_7, _ATAN_8 = (
    np.float32(value)
    for value in (
        *(0.9999999864, -0.3333309395, 0.1999305397, -0.1420713253, 0.1065467289),
        *(-0.07533666326, 0.04303925143, -0.0162829356, 0.002903534257),
    )
)


@compiled
def sine(x: np.float32) -> np.float32:
    """Return the sine of an angle from -10,000 to 10,000 radians, to within 3e-7."""
    turns = np.floor(x * _INVERSE_PI + _HALF)
    rest = ((x - turns * _PI_1) - turns * _PI_2) - turns * _PI_3
    sign = _ONE - _TWO * (turns - _TWO * np.floor(turns * _HALF))
    square = rest * rest
    series = _SIN_0 + square * (_SIN_1 + square * (_SIN_2 + square * (_SIN_3 + square * _SIN_4)))
    return sign * rest * series


@compiled
def sine_and_cosine(x: np.float32) -> tuple[np.float32, np.float32]:
    """Return the sine and the cosine of an angle from -10,000 to 10,000 radians, to within 3e-7."""
    turns = np.floor(x * _INVERSE_PI + _HALF)
    rest = ((x - turns * _PI_1) - turns * _PI_2) - turns * _PI_3
    sign = _ONE - _TWO * (turns - _TWO * np.floor(turns * _HALF))
    square = rest * rest
    odd = _SIN_0 + square * (_SIN_1 + square * (_SIN_2 + square * (_SIN_3 + square * _SIN_4)))
    even = _COS_0 + square * (_COS_1 + square * (_COS_2 + square * (_COS_3 + square * (_COS_4 + square * _COS_5))))
    return sign * rest * odd, sign * even


@compiled
def angle_of(y: np.float32, x: np.float32) -> np.float32:
    """Return the angle of the vector ``(x, y)`` from -pi to pi, to within 5e-7; 0 for the zero vector."""
    width, height = abs(x), abs(y)
    longer, shorter = max(width, height), min(width, height)
    ratio = shorter / max(longer, np.float32(1e-30))
    square = ratio * ratio
    series = _ATAN_4 + square * (_ATAN_5 + square * (_ATAN_6 + square * (_ATAN_7 + square * _ATAN_8)))
    series = _ATAN_0 + square * (_ATAN_1 + square * (_ATAN_2 + square * (_ATAN_3 + square * series)))
    angle = ratio * series
    angle = _HALF_PI - angle if height > width else angle
    angle = _PI - angle if x < np.float32(0) else angle
    return -angle if y < np.float32(0) else angle
