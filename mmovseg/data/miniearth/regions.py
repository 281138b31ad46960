"""Tables of MiniEarth: class ids, palettes and morphology per region, and radar backscatter. Data only.

Colours are RGB on the 0..255 scale, lengths are metres, backscatter is sigma nought in dB at 38 degrees incidence.
The backscatter follows the order of magnitude of published C-, L- and X-band statistics for such surfaces; it is meant
to be plausible, not to reproduce one campaign.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmovseg.data.miniearth.domain import Band, Polarization, Region, Season

BARELAND, RANGELAND, FARMLAND, FOREST, CITY, ROAD, WATER = range(7)
NUM_CLASSES = 7
CLASS_NAMES = ("bareland", "rangeland", "farmland", "forest", "city", "road", "water")
DISTRICT_CLASSES = (BARELAND, RANGELAND, FARMLAND, FOREST, CITY)
TARGET_CATEGORIES = ("aircraft", "ship", "vehicle")

Color = tuple[float, float, float]


@dataclass(frozen=True)
class RegionTable:
    """Palette and morphology of one region.

    `bias` weighs the district classes bareland, rangeland, farmland, forest, city. Sizes are metres.
    """

    bareland: tuple[Color, ...]
    rangeland: tuple[Color, ...]
    crops: tuple[Color, ...]
    forest: tuple[Color, ...]
    city_ground: tuple[Color, ...]
    roofs: tuple[Color, ...]
    road: Color
    water: tuple[Color, Color]
    bias: tuple[float, float, float, float, float]
    parcel_m: tuple[float, float]
    block_m: tuple[float, float]
    lot_m: tuple[float, float]
    crown_m: float
    tree_cover: float
    river_m: float
    lake_level: float


REGIONS: dict[Region, RegionTable] = {
    "temperate": RegionTable(
        bareland=((166, 146, 116), (150, 130, 104), (178, 164, 138)),
        rangeland=((124, 132, 82), (140, 140, 92), (112, 126, 80)),
        crops=((112, 136, 62), (152, 152, 86), (176, 156, 106), (138, 112, 84), (88, 120, 58), (164, 142, 104)),
        forest=((48, 76, 40), (58, 84, 44), (40, 66, 44)),
        city_ground=((156, 144, 124), (140, 134, 106), (120, 130, 86)),
        roofs=((152, 92, 74), (122, 118, 114), (186, 182, 176), (98, 94, 94), (164, 120, 96)),
        road=(104, 105, 108),
        water=((38, 62, 76), (66, 92, 96)),
        bias=(-0.085, 0.0, 0.01, 0.0, 0.095),
        parcel_m=(60.0, 110.0),
        block_m=(70.0, 120.0),
        lot_m=(20.0, 30.0),
        crown_m=9.0,
        tree_cover=1.0,
        river_m=28.0,
        lake_level=1.42,
    ),
    "arid": RegionTable(
        bareland=((198, 172, 134), (184, 154, 114), (210, 190, 158)),
        rangeland=((160, 146, 104), (150, 142, 98), (172, 154, 116)),
        crops=((98, 128, 62), (130, 138, 78), (178, 158, 112), (160, 128, 92), (84, 112, 58), (190, 166, 122)),
        forest=((88, 98, 62), (98, 104, 70), (78, 92, 58)),
        city_ground=((196, 174, 140), (184, 160, 124), (164, 150, 112)),
        roofs=((206, 196, 178), (188, 170, 144), (150, 138, 122), (222, 214, 202), (172, 146, 116)),
        road=(122, 118, 114),
        water=((48, 84, 92), (92, 118, 108)),
        bias=(0.09, 0.03, -0.04, -0.18, 0.115),
        parcel_m=(90.0, 150.0),
        block_m=(55.0, 90.0),
        lot_m=(16.0, 22.0),
        crown_m=8.0,
        tree_cover=0.62,
        river_m=24.0,
        lake_level=1.38,
    ),
    "tropical": RegionTable(
        bareland=((162, 108, 76), (148, 98, 70), (176, 128, 92)),
        rangeland=((116, 140, 72), (130, 144, 80), (104, 128, 66)),
        crops=((96, 142, 64), (132, 152, 76), (158, 142, 84), (142, 98, 68), (78, 124, 58), (120, 132, 92)),
        forest=((34, 78, 38), (46, 90, 42), (30, 66, 34)),
        city_ground=((164, 142, 112), (146, 134, 98), (116, 132, 76)),
        roofs=((168, 104, 78), (178, 176, 172), (136, 130, 124), (112, 120, 130), (196, 150, 118)),
        road=(112, 106, 104),
        water=((74, 82, 66), (112, 108, 78)),
        bias=(-0.115, -0.025, -0.015, 0.08, 0.08),
        parcel_m=(40.0, 75.0),
        block_m=(60.0, 130.0),
        lot_m=(15.0, 24.0),
        crown_m=12.0,
        tree_cover=1.0,
        river_m=36.0,
        lake_level=1.50,
    ),
}

# Factors on vegetation colours (rangeland and forest) and on crop colours.
SEASONS: dict[Season, tuple[Color, Color]] = {
    "spring": ((0.96, 1.10, 0.92), (0.92, 1.08, 0.92)),
    "summer": ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "autumn": ((1.26, 1.00, 0.86), (1.10, 0.98, 0.94)),
    "winter": ((1.16, 0.98, 1.08), (1.12, 0.96, 1.02)),
}

# Per class: bareland, rangeland, farmland, forest, city (ground between buildings), road, water.
SIGMA0_DB: dict[Band, dict[Polarization, tuple[float, ...]]] = {
    "C": {
        "VV": (-13.5, -11.5, -11.0, -8.0, -9.0, -16.0, -20.0),
        "VH": (-21.0, -17.5, -17.0, -12.5, -15.5, -23.0, -27.0),
        "HH": (-14.0, -11.0, -10.5, -7.8, -8.0, -17.0, -22.5),
        "HV": (-21.0, -17.3, -16.8, -12.3, -15.3, -23.0, -27.5),
    },
    "L": {
        "VV": (-18.0, -15.5, -14.0, -8.8, -10.5, -20.5, -21.5),
        "VH": (-28.0, -23.5, -22.0, -13.5, -18.5, -30.0, -31.0),
        "HH": (-18.5, -15.0, -13.5, -7.8, -9.0, -21.5, -24.0),
        "HV": (-28.0, -23.3, -21.8, -13.2, -18.3, -30.0, -31.5),
    },
    "X": {
        "VV": (-11.5, -9.8, -9.3, -7.6, -8.0, -15.0, -17.5),
        "VH": (-18.5, -15.8, -15.3, -12.6, -14.5, -21.5, -24.5),
        "HH": (-12.0, -9.5, -9.0, -7.4, -7.2, -16.0, -19.5),
        "HV": (-18.5, -15.6, -15.1, -12.4, -14.3, -21.5, -25.0),
    },
}
# Roofs and walls turned towards the sensor; double bounce at the foot of a wall that faces the sensor squarely.
ROOF_DB: dict[Polarization, float] = {"VV": -9.0, "VH": -16.0, "HH": -9.0, "HV": -16.0}
WALL_DB: dict[Polarization, float] = {"VV": -3.0, "VH": -10.0, "HH": -2.5, "HV": -10.0}
DOUBLE_BOUNCE_DB: dict[Polarization, float] = {"VV": 5.0, "VH": -6.0, "HH": 8.0, "HV": -6.0}
# Debris of a collapsed building: rough in every direction.
RUBBLE_DB: dict[Polarization, float] = {"VV": -7.0, "VH": -11.0, "HH": -7.0, "HV": -11.0}
TARGET_DB: dict[Polarization, float] = {"VV": 4.0, "VH": -5.0, "HH": 6.0, "HV": -5.0}
