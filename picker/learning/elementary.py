"""Logarithm and exponential that loops can do a register at a time: numba calls the C library's, number by number.

To the last bit or two of 64, so that a feature rounds to the same 32 bits as numpy's and falls on the same side of a
threshold. For use in kernels.
"""

import numpy as np

from picker.learning.compiled import vector

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_MANTISSA, _HALF_ROOT, _BIAS = 0x000F_FFFF_FFFF_FFFF, 0x3FE6_A09E_0000_0000, 0x3FF0_0000_0000_0000
_LARGEST = 1.7976931348623157e308


@vector
def log1p(x: float) -> float:
    """Of a number that is not negative; inf and nan stay what they are."""
    u = 1.0 + x
    said = _log(u, (x - (u - 1.0)) / u)
    return said if x <= _LARGEST else x


@vector
def log(x: float) -> float:
    """Of a normal number above zero; inf and nan stay what they are."""
    said = _log(x, 0.0)
    return said if x <= _LARGEST else x


@vector
def exp(x: float) -> float:
    """From -708 to 709; beyond, what it is there. nan is nan."""
    inside = min(max(x, -708.0), 709.0)
    power = np.floor(inside * 1.4426950408889634 + 0.5)
    r = inside - power * _LN2_HIGH - power * _LN2_LOW
    # Horner's scheme over 1 / k!, good to 4e-18 where |r| <= ln 2 / 2.
    y = 1.0 / 6227020800.0
    y = y * r + 1.0 / 479001600.0
    y = y * r + 1.0 / 39916800.0
    y = y * r + 1.0 / 3628800.0
    y = y * r + 1.0 / 362880.0
    y = y * r + 1.0 / 40320.0
    y = y * r + 1.0 / 5040.0
    y = y * r + 1.0 / 720.0
    y = y * r + 1.0 / 120.0
    y = y * r + 1.0 / 24.0
    y = y * r + 1.0 / 6.0
    y = y * r + 0.5
    y = y * r + 1.0
    y = y * r + 1.0
    scale = np.int64((np.int64(power) + np.int64(1023)) << np.int64(52)).view(np.float64)
    return y * scale if x == x else x


@vector
def _log(u: float, correction: float) -> float:
    """log(u) + correction: the mantissa about 1 by the polynomial of fdlibm's `log`, the exponent times log 2."""
    bits = np.float64(u).view(np.int64) + np.int64(_BIAS - _HALF_ROOT)
    power = np.float64((bits >> np.int64(52)) - np.int64(1023))
    f = np.int64((bits & np.int64(_MANTISSA)) + np.int64(_HALF_ROOT)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    odd = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    half = 0.5 * f * f
    return s * (half + even + odd) + (power * _LN2_LOW + correction) - half + f + power * _LN2_HIGH
