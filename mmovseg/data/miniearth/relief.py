"""Heights seen from the side: shadows, layover and walls by shifting a height map along a direction.

Directions are (down, right) unit vectors in the image. Every function reaches at most `reach_px` pixels, so a margin of
that size makes the inside of a window independent of where the window ends.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mmovseg.data.miniearth.noise import Float

Mask = NDArray[np.bool_]

REACH_M = 27.0


def reach_px(gsd_m: float) -> int:
    """Return the longest shift of this module in pixels."""
    return math.ceil(REACH_M / gsd_m)


def shifted(values: NDArray, down: int, right: int) -> NDArray:
    """Return the array moved by whole pixels, the same shape; what enters from outside is 0."""
    result = np.zeros_like(values)
    height, width = values.shape
    if abs(down) >= height or abs(right) >= width:
        return result
    target = (slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0)))
    source = (slice(max(-down, 0), height + min(-down, 0)), slice(max(-right, 0), width + min(-right, 0)))
    result[target] = values[source]
    return result


def steps(direction: tuple[float, float], height_m: Float, slope: float, gsd_m: float) -> list[tuple[int, int, float]]:
    """Return (down, right, metres) of the shifts that the highest point can need at `slope` metres per metre."""
    longest = min(float(height_m.max(initial=0.0)) * slope, REACH_M)
    count = min(int(longest / gsd_m + 0.5), reach_px(gsd_m))
    return [(round(k * direction[0]), round(k * direction[1]), k * gsd_m) for k in range(1, count + 1)]


def cast_shadow(height_m: Float, direction: tuple[float, float], slope: float, gsd_m: float) -> Mask:
    """Return where something higher stands in the light.

    Args:
        height_m: (H, W) heights, >= 0.
        direction: where shadows fall to.
        slope: metres of shadow per metre of height.
        gsd_m: metres per pixel.
    """
    shadow = np.zeros(height_m.shape, dtype=np.bool_)
    for down, right, length in steps(direction, height_m, slope, gsd_m):
        drop = np.float32((length - 0.5 * gsd_m) / slope)
        shadow |= shifted(height_m, down, right) - height_m > drop
    return shadow


def lay_over(height_m: Float, direction: tuple[float, float], slope: float, gsd_m: float) -> Float:
    """Return per pixel how many echoes of elevated surfaces fall onto it from behind (seen from the sensor).

    A point of height h appears h * slope metres nearer to the sensor, together with the wall below it. The sum over the
    wall is divided by its length, so that a wall's whole echo does not depend on the pixel size.

    Args:
        height_m: (H, W) heights of buildings, 0 elsewhere.
        direction: look direction, away from the sensor.
        slope: metres of layover per metre of height.
        gsd_m: metres per pixel.
    """
    echoes = np.zeros(height_m.shape, dtype=np.float32)
    for down, right, length in steps(direction, height_m, slope, gsd_m):
        need = np.float32((length - 0.5 * gsd_m) / slope)
        echoes += shifted(height_m, -down, -right) > need
    echoes *= np.float32(gsd_m / 5.0)
    return echoes


def wall_foot(height_m: Float, direction: tuple[float, float]) -> Mask:
    """Return ground pixels whose next pixel in the look direction is a building: feet of walls facing the sensor."""
    down, right = round(direction[0] * 1.3), round(direction[1] * 1.3)
    return (shifted(height_m, -down, -right) > 0) & (height_m == 0)
