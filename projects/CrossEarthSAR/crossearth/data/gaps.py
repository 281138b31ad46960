"""The eight domain gaps of the paper (Table 1) on MiniEarth, for anyone without the six data sets.

A model is pretrained on a pool of domains, trained on one source domain and tested on domains that it never saw. All of
them come as one channel of amplitude, 0 .. 255: the co-polarised one, whatever unit the domain's raster has. Labels are
the seven classes of MiniEarth in every domain, so nothing has to be unified.

No scene is used twice: pool and source share the training area, where each takes windows of its own; targets are scenes
of the test area, 600 km away, and a region is a land of its own. Of what a target changes (region, polarisation,
platform, band, value type) a pool holds some alone, see `POOLS`, and never its combination.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from mmovseg.data.miniearth import DOMAINS, Domain, load_miniearth
from mmovseg.data.miniearth.dataset import DEFAULT_COUNTS, Split
from mmovseg.data.sample import DatasetDict, RawSample, Reader
from mmovseg.data.sar import AMPLITUDE8_TOP_DB, convert_sar, linear_to_db
from mmovseg.errors import UserError

Rendering = Literal["amplitude", "real", "imaginary"]
RENDERINGS: tuple[Rendering, ...] = get_args(Rendering)
Side = Literal["source", "target"]
PoolName = Literal["factors", "strict"]
RENDERING_KEY = "rendering"


@dataclass(frozen=True)
class View:
    """A domain and how its values become amplitude."""

    domain: Domain
    rendering: Rendering = "amplitude"


@dataclass(frozen=True)
class Gap:
    """One gap: where a model is trained and where it is tested."""

    source: View
    target: View
    about: str


def _domain(name: str) -> Domain:
    return DOMAINS[name].domain


def _gap(target: str, rendering: Rendering = "amplitude") -> Gap:
    return Gap(View(_domain("default")), View(_domain(target), rendering), DOMAINS[target].about)


# One source for all eight: one training can be tested on every target. In the complex gap the number of looks changes
# with the values, since complex values are single-look; `complex_part` alone changes nothing else.
GAPS: dict[str, Gap] = {
    "region": _gap("unseen_region"),
    "polarization": _gap("unseen_polarization"),
    "complex": _gap("unseen_complex", "real"),
    "region_polarization": _gap("unseen_region_polarization"),
    "region_platform": _gap("unseen_region_platform"),
    "region_band": _gap("unseen_region_band"),
    "region_polarization_band": _gap("unseen_region_polarization_band"),
    "region_platform_band": _gap("unseen_region_platform_band"),
}
EIGHT_GAPS = tuple(GAPS)
_SINGLE_LOOK = _domain("unseen_complex")
GAPS["complex_part"] = Gap(
    View(_SINGLE_LOOK), View(_SINGLE_LOOK, "real"), "gap 3 of the same scenes: amplitude against the real part"
)

_BASE = _domain("default")
_AIRBORNE = replace(_domain("unseen_region_platform"), region=_BASE.region)
_STRICT: dict[str, Domain] = {
    "default": _BASE,
    "winter": _domain("winter"),
    "single_look": _domain("single_look"),
    "many_looks": replace(_BASE, looks=16),
    "coarse": _domain("coarse"),
    "steep": replace(_BASE, incidence_deg=26.0),
    "shallow": replace(_BASE, incidence_deg=50.0, look_direction_deg=260.0),
    "noisy": replace(_BASE, noise_floor_db=-22.0),
}
POOLS: dict[str, dict[str, Domain]] = {
    # One factor of the gaps at a time, as in the paper, whose pretraining images are of many sensors, those of the
    # benchmarks among them. Arid land, HH and HV, and complex values are in neither pool.
    "factors": {
        **{name: _STRICT[name] for name in ("default", "winter", "single_look", "coarse")},
        "tropical": _domain("tropical"),
        "x_band": replace(_BASE, band="X"),
        "l_band": replace(_BASE, band="L"),
        "airborne": _AIRBORNE,
    },
    # None of the factors of the gaps: only season, looks, pixel size, geometry and noise differ.
    "strict": _STRICT,
}
POOL_START = 2000
"""Number of the first window of the pools in the training area; those before are for sources."""


def load_gap(
    gap: str,
    side: Side,
    *,
    split: Split | None = None,
    num_scenes: int | None = None,
    size: int = 64,
    part: Literal["real", "imaginary"] = "real",
    reverse: bool = False,
    seed: int = 0,
) -> list[DatasetDict]:
    """Return the scenes of one side of a gap; `AmplitudeReader` over `MiniEarthReader` turns each into arrays.

    Args:
        gap: key of `GAPS`.
        side: what the model is trained on, or what it is tested on.
        split: None = ``train`` for the source and ``test`` for the target.
        num_scenes: how many; None = 2000 of the training area (all that the pools leave) and 500 of the others.
        size: pixels per side.
        part: of complex values, which one the rendering shows.
        reverse: swap source and target, the other direction of the paper's pairs.
        seed: which world.

    Returns:
        Dataset dicts; `source` says ``<gap>_source`` or ``<gap>_target``, `world` the domain and the rendering.

    Raises:
        UserError: unknown gap, side or part, more training scenes than the pools leave, or see `load_miniearth`.
    """
    if gap not in GAPS:
        raise UserError(f"MiniEarth has no gap '{gap}'; it has: {', '.join(GAPS)}")
    if side not in get_args(Side):
        raise UserError(f"a gap has the sides source and target, got '{side}'")
    if part not in RENDERINGS[1:]:
        raise UserError(f"part of complex values must be real or imaginary, got '{part}'")
    view = GAPS[gap].source if (side == "source") != reverse else GAPS[gap].target
    if view.rendering != "amplitude":
        view = replace(view, rendering=part)
    split = split or ("train" if side == "source" else "test")
    if split == "train":
        num_scenes = POOL_START if num_scenes is None else num_scenes
        if num_scenes > POOL_START:
            raise UserError(f"sources of gaps have at most {POOL_START} training scenes, got num_scenes {num_scenes}")
    scenes = load_miniearth(split, num_scenes=num_scenes, size=size, domain=view.domain, seed=seed)
    return [_viewed(scene, view, f"{gap}_{side}") for scene in scenes]


def load_pool(
    pool: PoolName | Sequence[str] = "factors",
    *,
    split: Split = "train",
    num_scenes: int = 1600,
    size: int = 64,
    seed: int = 0,
) -> list[DatasetDict]:
    """Return scenes of several domains for continued pretraining, the same number of each.

    Args:
        pool: name of `POOLS`, or names of domains of one of them.
        split: ``train``; another one to look at losses or experts of scenes that were not trained on.
        num_scenes: of all domains together, cut down to a multiple of their number.
        size: pixels per side.
        seed: which world.

    Returns:
        Dataset dicts, the domains taking turns; `source` is the name of the domain.

    Raises:
        UserError: unknown pool or domain, or fewer scenes than domains.
    """
    domains = _pool_domains(pool)
    each = num_scenes // len(domains)
    if each < 1:
        raise UserError(f"a pool of {len(domains)} domains needs as many scenes, got num_scenes {num_scenes}")
    start = POOL_START if split == "train" else DEFAULT_COUNTS[split]
    listed = []
    for number, (name, domain) in enumerate(domains.items()):
        first = start + number * each
        scenes = load_miniearth(split, num_scenes=first + each, size=size, domain=domain, seed=seed)[first:]
        listed.append([_viewed(scene, View(domain), name) for scene in scenes])
    return [scene for turn in zip(*listed, strict=True) for scene in turn]


def _pool_domains(pool: PoolName | Sequence[str]) -> dict[str, Domain]:
    if isinstance(pool, str):
        if pool not in POOLS:
            raise UserError(f"MiniEarth has no pool '{pool}'; it has: {', '.join(POOLS)}")
        return POOLS[pool]
    known = {name: domain for domains in POOLS.values() for name, domain in domains.items()}
    for name in pool:
        if name not in known:
            raise UserError(f"no pool of MiniEarth has a domain '{name}'; they have: {', '.join(known)}")
    if not pool:
        raise UserError("a pool needs at least one domain")
    return {name: known[name] for name in pool}


def _viewed(scene: DatasetDict, view: View, source: str) -> DatasetDict:
    world = {**scene["world"], RENDERING_KEY: view.rendering}
    # one window of the world in two domains is two images
    return {**scene, "image_id": f"{source}/{scene['image_id']}", "source": source, "world": world}


class AmplitudeReader:
    """Reduce the SAR raster of another reader to one channel of amplitude, 0 .. 255.

    Args:
        reader: over MiniEarth; its facts name the channels and the unit.
        channel: which polarisation, in the order of the domain; 0 is the co-polarised one.
        signed: how the real or imaginary part of a complex value is shown. False: its magnitude, times the square root
            of two, so that mean power stays (the renderings of AIR-PolSAR-Seg-2.0 look so: models trained on them lose
            little on amplitude, Table 2). True: around 127.5, where ground keeps no mean of its own.

    Raises:
        UserError: a channel below 0.
    """

    def __init__(self, reader: Reader, *, channel: int = 0, signed: bool = False) -> None:
        if channel < 0:
            raise UserError(f"channel of the amplitude must be 0 or more, got {channel}")
        self.reader, self.channel, self.signed = reader, channel, signed

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Return the sample with SAR (H, W, 1) float32, whole numbers 0 .. 255.

        Raises:
            UserError: no such channel or rendering, or a part is asked of values that are not complex.
        """
        sample = self.reader(dataset_dict)
        assert sample.sar is not None  # MiniEarth has both views
        unit = sample.facts["domain"]["value_type"]
        rendering = dataset_dict["world"].get(RENDERING_KEY, "amplitude")
        name = dataset_dict.get("image_id", "?")
        if rendering not in RENDERINGS:
            raise UserError(f"'{name}' asks for the rendering '{rendering}'; known: {', '.join(RENDERINGS)}")
        if rendering != "amplitude" and unit != "complex":
            raise UserError(f"'{name}' asks for the {rendering} part, but its values are '{unit}', not complex")
        channels = sample.sar.shape[2] // (2 if unit == "complex" else 1)
        if self.channel >= channels:
            raise UserError(f"'{name}' has {channels} polarisations, so there is no channel {self.channel}")
        if unit == "complex":
            parts = sample.sar[..., 2 * self.channel : 2 * self.channel + 2]
            sample.sar = self._from_complex(parts, rendering)
        else:
            chosen = sample.sar[..., self.channel : self.channel + 1]
            sample.sar = convert_sar(chosen, unit_in=unit, unit_out="amplitude8")
        return sample

    def _from_complex(self, parts: np.ndarray, rendering: Rendering) -> np.ndarray:
        """(H, W, 2) real and imaginary -> (H, W, 1)."""
        if rendering == "amplitude":
            power = np.square(parts, dtype=np.float64).sum(axis=2, keepdims=True)
        else:
            number = RENDERINGS.index(rendering) - 1
            value = parts[..., number : number + 1].astype(np.float64) * np.sqrt(2.0)
            if self.signed:
                gain = 127.5 / 10.0 ** (AMPLITUDE8_TOP_DB / 20.0)
                return np.clip(np.rint(127.5 + gain * value), 0.0, 255.0).astype(np.float32)
            power = np.square(value)
        return convert_sar(linear_to_db(power), unit_in="db", unit_out="amplitude8")
