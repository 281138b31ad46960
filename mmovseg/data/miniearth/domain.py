"""Domains of MiniEarth: which region is seen, by which sensors, at what time. Data only, no rendering.

A `Domain` is a value: hashable, json-able both ways, and part of every dataset dict. The eight domain gaps of
CrossEarth-SAR (region, polarisation, complex value and their combinations with platform and band) are named here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from mmovseg.errors import UserError

Region = Literal["temperate", "arid", "tropical"]
Season = Literal["spring", "summer", "autumn", "winter"]
Platform = Literal["spaceborne", "airborne"]
Band = Literal["L", "C", "X"]
Polarization = Literal["VV", "VH", "HH", "HV"]
ValueType = Literal["db", "linear", "amplitude8", "complex"]


@dataclass(frozen=True)
class Domain:
    """Everything that a domain gap can change. The defaults are the domain called ``default``.

    Attributes:
        region: morphology and palette of the landscape.
        season: colour of vegetation and crops.
        platform: airborne looks flatter, brighter and sharper than spaceborne.
        gsd_m: metres per pixel of both sensors, 0.5 .. 20.
        optical_gain: factor per channel (R, G, B) on the 0..255 scale.
        optical_offset: added per channel after the gain, in grey levels.
        optical_blur: number of 3x3 binomial smoothings, 0 .. 3.
        optical_noise: standard deviation of the sensor noise in grey levels, >= 0.
        sun_azimuth_deg: where the light comes from, clockwise from north.
        sun_elevation_deg: height of the sun, 20 .. 85.
        band: radar band.
        polarizations: channels of the SAR raster, in this order.
        looks: integer number of looks, the equivalent number of looks of homogeneous ground; 1 for complex values.
        look_direction_deg: direction in which the radar looks, clockwise from north.
        incidence_deg: incidence angle, 20 .. 60.
        noise_floor_db: noise-equivalent sigma nought.
        value_type: unit of the SAR raster: sigma nought in dB, linear power, 8-bit amplitude (0..255), or complex
            amplitude as channels (I, Q) per polarisation.
        speckle: False gives the mean backscatter.
        misregistration_px: bound of the smooth local shift of SAR against optical, 0 .. 4.
        time_gap: 0 = both views at one time, 1 = a season apart (crops and water level differ), 0 .. 1.
    """

    region: Region = "temperate"
    season: Season = "summer"
    platform: Platform = "spaceborne"
    gsd_m: float = 2.5
    optical_gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    optical_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    optical_blur: int = 0
    optical_noise: float = 2.0
    sun_azimuth_deg: float = 140.0
    sun_elevation_deg: float = 50.0
    band: Band = "C"
    polarizations: tuple[Polarization, ...] = ("VV", "VH")
    looks: int = 4
    look_direction_deg: float = 80.0
    incidence_deg: float = 38.0
    noise_floor_db: float = -30.0
    value_type: ValueType = "db"
    speckle: bool = True
    misregistration_px: float = 0.5
    time_gap: float = 0.0

    def __post_init__(self) -> None:
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise UserError(
                    f"MiniEarth domain: {key} is '{getattr(self, key)}', expected one of {', '.join(allowed)}"
                )
        unknown = [name for name in self.polarizations if name not in get_args(Polarization)]
        if unknown or not self.polarizations or len(set(self.polarizations)) < len(self.polarizations):
            raise UserError(
                f"MiniEarth domain: polarizations is {list(self.polarizations)}, expected a choice of VV, VH, HH, HV"
            )
        for key, (low, high) in _RANGES.items():
            if not low <= getattr(self, key) <= high:
                raise UserError(f"MiniEarth domain: {key} is {getattr(self, key)}, expected {low} .. {high}")
        for key in ("looks", "optical_blur"):
            if not isinstance(getattr(self, key), int):
                raise UserError(f"MiniEarth domain: {key} is {getattr(self, key)}, expected a whole number")
        if self.value_type == "complex" and self.looks != 1:
            raise UserError(f"MiniEarth domain: complex values are single-look, but looks is {self.looks}")

    @property
    def sar_channels(self) -> tuple[str, ...]:
        """Names of the SAR channels in order, for example ``("VV", "VH")`` or ``("VV_I", "VV_Q", ...)``."""
        if self.value_type == "complex":
            return tuple(f"{name}_{part}" for name in self.polarizations for part in "IQ")
        return tuple(self.polarizations)

    @property
    def sar_unit(self) -> str:
        """Unit of the SAR raster, as written into files."""
        return {
            "db": "dB sigma nought",
            "linear": "linear sigma nought",
            "amplitude8": "amplitude 0..255",
            "complex": "complex amplitude (I, Q)",
        }[self.value_type]

    def to_dict(self) -> dict[str, Any]:
        """Return a json-able dict; `domain_from_dict` is the inverse."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


_CHOICES: dict[str, tuple[str, ...]] = {
    "region": get_args(Region),
    "season": get_args(Season),
    "platform": get_args(Platform),
    "band": get_args(Band),
    "value_type": get_args(ValueType),
}
_RANGES: dict[str, tuple[float, float]] = {
    "gsd_m": (0.5, 20.0),
    "optical_blur": (0, 3),
    "optical_noise": (0.0, 60.0),
    "sun_elevation_deg": (20.0, 85.0),
    "looks": (1, 64),
    "incidence_deg": (20.0, 60.0),
    "misregistration_px": (0.0, 4.0),
    "time_gap": (0.0, 1.0),
}


def domain_from_dict(content: dict[str, Any]) -> Domain:
    """Return the domain that `Domain.to_dict` wrote; missing keys keep their defaults.

    Raises:
        UserError: an unknown key or a value out of range.
    """
    known = {item.name for item in fields(Domain)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise UserError(f"MiniEarth domain: unknown key '{unknown[0]}', known: {', '.join(sorted(known))}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    return Domain(**values)


@dataclass(frozen=True)
class NamedDomain:
    """A domain with the sentence that the data card prints."""

    domain: Domain
    about: str = field(default="")


_HH_HV: tuple[Polarization, ...] = ("HH", "HV")
_AIRBORNE: dict[str, Any] = {
    "platform": "airborne",
    "optical_gain": (1.10, 1.04, 0.92),
    "optical_offset": (6.0, 2.0, -4.0),
    "optical_noise": 4.0,
    "sun_azimuth_deg": 215.0,
    "sun_elevation_deg": 38.0,
    "looks": 2,
    "look_direction_deg": 200.0,
    "incidence_deg": 52.0,
    "noise_floor_db": -34.0,
}
_BASE = Domain()

DOMAINS: dict[str, NamedDomain] = {
    "default": NamedDomain(_BASE, "temperate, summer, spaceborne, C band, VV and VH, 4 looks, dB"),
    "unseen_region": NamedDomain(replace(_BASE, region="arid"), "gap 1: another region"),
    "unseen_polarization": NamedDomain(replace(_BASE, polarizations=_HH_HV), "gap 2: HH and HV"),
    "unseen_complex": NamedDomain(replace(_BASE, value_type="complex", looks=1), "gap 3: single-look complex values"),
    "unseen_region_polarization": NamedDomain(
        replace(_BASE, region="tropical", polarizations=_HH_HV), "gap 4: another region, HH and HV"
    ),
    "unseen_region_platform": NamedDomain(
        replace(_BASE, region="arid", **_AIRBORNE), "gap 5: another region, airborne"
    ),
    "unseen_region_band": NamedDomain(replace(_BASE, region="tropical", band="X"), "gap 6: another region, X band"),
    "unseen_region_polarization_band": NamedDomain(
        replace(_BASE, region="arid", band="L", polarizations=_HH_HV), "gap 7: another region, L band, HH and HV"
    ),
    "unseen_region_platform_band": NamedDomain(
        replace(_BASE, region="tropical", band="X", **_AIRBORNE), "gap 8: another region, airborne, X band"
    ),
    "tropical": NamedDomain(replace(_BASE, region="tropical"), "another region"),
    "winter": NamedDomain(
        replace(_BASE, season="winter", sun_azimuth_deg=165.0, sun_elevation_deg=28.0), "low sun, bare crops"
    ),
    "single_look": NamedDomain(replace(_BASE, looks=1), "strong speckle"),
    "coarse": NamedDomain(replace(_BASE, gsd_m=5.0), "the same world at 5 m"),
    "full_polarization": NamedDomain(replace(_BASE, polarizations=("HH", "HV", "VH", "VV")), "four polarisations"),
    "amplitude8": NamedDomain(replace(_BASE, value_type="amplitude8"), "8-bit amplitude as in web-delivered SAR"),
    "time_gap": NamedDomain(replace(_BASE, time_gap=1.0), "SAR taken a season after the optical image"),
    "clean_sar": NamedDomain(replace(_BASE, speckle=False, misregistration_px=0.0), "no speckle, exact registration"),
}


def get_domain(name: str | Domain | dict[str, Any]) -> Domain:
    """Return a domain by name; a `Domain` or its dict passes through.

    Raises:
        UserError: the name is unknown; the message lists the known ones.
    """
    if isinstance(name, Domain):
        return name
    if isinstance(name, dict):
        return domain_from_dict(name)
    if name not in DOMAINS:
        raise UserError(f"no MiniEarth domain is called '{name}'; known: {', '.join(DOMAINS)}")
    return DOMAINS[name].domain
