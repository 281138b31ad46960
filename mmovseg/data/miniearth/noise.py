"""Seeded noise that depends on world coordinates only, so that any two windows agree where they overlap.

Everything is built from an integer hash of lattice points and from additions, multiplications and square roots, which
IEEE 754 rounds correctly: the same seed gives the same bits in every window, on every machine. `log2` and `exp2` are
spelled out here for the same reason (those of numpy may differ in the last bit between processors).

Shapes: H W pixels of a window. `ys`, `xs` are 1-D float64 coordinates in ascending order (pixels or metres).
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Hash = NDArray[np.uint32]
Int = NDArray[np.int64]

# Mean over positions of the summed squared weights of a quadratic B-spline is 11/20 per axis; a uniform lattice value
# has the variance 1/12. This is therefore the standard deviation of the interpolated lattice.
_SPLINE_STD = float(np.sqrt(0.55**2 / 12.0))
# Standard deviation of the Beta(3, 3) distribution, whose distribution function is the quintic smoothstep.
_BETA33_STD = float(np.sqrt(1.0 / 28.0))


def stream_seed(seed: int, name: str) -> int:
    """Return the seed of one named, independent noise stream, 0 .. 2**32 - 1."""
    value = np.array([(seed * 0x9E3779B97F4A7C15 + zlib.crc32(name.encode())) & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return int(value[0] >> np.uint64(32))


def mix32(values: Hash) -> Hash:
    """Scramble 32-bit values (the finaliser of MurmurHash3: every input bit reaches every output bit)."""
    mixed = values ^ (values >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def lattice_hash(iy: Int, ix: Int, seed: int) -> Hash:
    """Hash integer lattice points; `iy` and `ix` broadcast against each other, negative values are fine."""
    rows = mix32(np.atleast_1d(iy).astype(np.uint32) * np.uint32(0x9E3779B1) + np.uint32(seed))
    cols = mix32(np.atleast_1d(ix).astype(np.uint32) * np.uint32(0x85EBCA77) + np.uint32(seed ^ 0x5BD1E995))
    return mix32(rows + cols)


def rehash(values: Hash, index: int) -> Hash:
    """Return another hash that is independent of `values` for each `index` >= 0."""
    return mix32(values + np.uint32((0x9E3779B9 * (index + 1)) & 0xFFFFFFFF))


def unit(values: Hash) -> Float:
    """Map hashes to uniform float32 in the open interval (0, 1), exactly."""
    return (values >> np.uint32(9)).astype(np.float32) * np.float32(2.0**-23) + np.float32(2.0**-24)


def _taps(coords: Double, cell: float) -> tuple[Int, Float]:
    """Return the first of three lattice indices per coordinate (n,) and the B-spline weights (3, n)."""
    position = coords / cell
    centre = np.floor(position + 0.5)
    offset = (position - centre).astype(np.float32)
    weights = np.stack([0.5 * (0.5 - offset) ** 2, 0.75 - offset**2, 0.5 * (0.5 + offset) ** 2])
    return centre.astype(np.int64) - 1, weights


def _slopes(coords: Double, cell: float) -> Float:
    """Return the derivatives (3, n) of the weights of `_taps` by the coordinate."""
    position = coords / cell
    offset = (position - np.floor(position + 0.5)).astype(np.float32)
    return np.stack([offset - 0.5, -2.0 * offset, offset + 0.5]) * np.float32(1.0 / cell)


def _lattice(yi: Int, xi: Int, seed: int) -> Float:
    rows = np.arange(yi[0], yi[-1] + 3)[:, None]
    cols = np.arange(xi[0], xi[-1] + 3)[None, :]
    return (unit(lattice_hash(rows, cols, seed)) - np.float32(0.5)) * np.float32(1.0 / _SPLINE_STD)


def _blend_cols(lattice: Float, first: Int, weights: Float) -> Float:
    index = first - first[0]
    total = lattice[:, index] * weights[0]
    for tap in (1, 2):
        total += lattice[:, index + tap] * weights[tap]
    return total


def _blend_rows(lattice: Float, first: Int, weights: Float) -> Float:
    index = first - first[0]
    total = lattice[index]
    total *= weights[0][:, None]
    for tap in (1, 2):
        rows = lattice[index + tap]
        rows *= weights[tap][:, None]
        total += rows
    return total


def spline_noise(ys: Double, xs: Double, *, cell: float, seed: int) -> Float:
    """Return one octave of smooth noise, (H, W), roughly normal with mean 0 and standard deviation 1.

    Args:
        ys: (H,) ascending world coordinates of the rows.
        xs: (W,) ascending world coordinates of the columns.
        cell: lattice spacing in the unit of the coordinates, > 0.
        seed: see `stream_seed`.
    """
    yi, wy = _taps(ys, cell)
    xi, wx = _taps(xs, cell)
    return _blend_rows(_blend_cols(_lattice(yi, xi, seed), xi, wx), yi, wy)


def spline_noise_gradient(ys: Double, xs: Double, *, cell: float, seed: int) -> tuple[Float, Float, Float]:
    """Return `spline_noise` and its derivatives by y and by x, each (H, W)."""
    yi, wy = _taps(ys, cell)
    xi, wx = _taps(xs, cell)
    lattice = _lattice(yi, xi, seed)
    along = _blend_cols(lattice, xi, wx)
    across = _blend_cols(lattice, xi, _slopes(xs, cell))
    return _blend_rows(along, yi, wy), _blend_rows(along, yi, _slopes(ys, cell)), _blend_rows(across, yi, wy)


def fractal_normal(ys: Double, xs: Double, *, cell: float, octaves: int, seed: int, persistence: float = 0.5) -> Float:
    """Return a sum of octaves, each at half the cell of the one before, (H, W), mean 0 and standard deviation 1."""
    total = spline_noise(ys, xs, cell=cell, seed=seed)
    amplitude, power = 1.0, 1.0
    for octave in range(1, octaves):
        amplitude *= persistence
        power += amplitude**2
        layer = spline_noise(ys, xs, cell=cell / 2.0**octave, seed=stream_seed(seed, f"octave{octave}"))
        layer *= np.float32(amplitude)
        total += layer
    total *= np.float32(1.0 / np.sqrt(power))
    return total


def normal_to_unit(values: Float) -> Float:
    """Map standard normal values to nearly uniform ones in [0, 1] (a polynomial close to the normal distribution)."""
    t = np.clip(values * np.float32(_BETA33_STD) + np.float32(0.5), 0.0, 1.0)
    return np.minimum(t * t * t * (t * (t * np.float32(6.0) - np.float32(15.0)) + np.float32(10.0)), np.float32(1.0))


def pixel_axis(start: int, count: int) -> Double:
    """Return the centres of `count` pixels from `start` on, in pixels."""
    return np.arange(start, start + count, dtype=np.float64) + 0.5


def fractal_noise(
    row: int, col: int, height: int, width: int, *, cell: float, octaves: int, seed: int, persistence: float = 0.5
) -> Float:
    """Return fractal noise of a window of the world; a window equals the same crop of any larger one, bit by bit.

    The values are spread nearly evenly, so ``noise > 1 - share`` selects about `share` of a large area.

    Args:
        row: first row of the window in world pixels, any integer.
        col: first column.
        height: rows of the window, >= 1.
        width: columns of the window, >= 1.
        cell: lattice spacing of the coarsest octave in pixels; features are about that large.
        octaves: number of octaves >= 1; each halves the cell.
        seed: any integer.
        persistence: amplitude of an octave over that of the coarser one, > 0.

    Returns:
        (height, width) float32 in [0, 1].
    """
    ys, xs = pixel_axis(row, height), pixel_axis(col, width)
    base = stream_seed(seed, "fractal")
    return normal_to_unit(fractal_normal(ys, xs, cell=cell, octaves=octaves, seed=base, persistence=persistence))


def log2(values: Float) -> Float:
    """Return the base-2 logarithm of positive float32 values; absolute error below 1e-5."""
    mantissa, exponent = np.frexp(values)
    # atanh series around sqrt(1/2), where |z| <= 0.172 and the first dropped term is below 1e-7
    z = (mantissa - np.float32(0.70710678)) / (mantissa + np.float32(0.70710678))
    square = z * z
    series = square * np.float32(1.0 / 7.0) + np.float32(1.0 / 5.0)
    series = square * series + np.float32(1.0 / 3.0)
    series = (square * series + np.float32(1.0)) * z
    return series * np.float32(2.8853901) + (exponent.astype(np.float32) - np.float32(0.5))


def exp2(values: Float) -> Float:
    """Return 2 to the power of float32 values in -120 .. 120; relative error below 1e-5."""
    whole = np.floor(values + np.float32(0.5))
    x = (values - whole) * np.float32(0.69314718)
    series = x * np.float32(1.0 / 120.0) + np.float32(1.0 / 24.0)
    for term in (1.0 / 6.0, 0.5, 1.0, 1.0):
        series = series * x + np.float32(term)
    return np.ldexp(series, whole.astype(np.int32))


def db_to_power(values_db: Float) -> Float:
    """Return linear power of decibels."""
    return exp2(values_db * np.float32(0.33219281))


def power_to_db(power: Float) -> Float:
    """Return decibels of linear power > 0."""
    return log2(power) * np.float32(3.0103)
