"""MiniEarth: a seeded procedural world with optical and SAR views, labels, targets and captions.

`README.md` beside this file is the data card. `load_miniearth` lists scenes, `MiniEarthReader` renders them, `render`
gives any window of the world.
"""

from mmovseg.data.miniearth.dataset import MiniEarthReader, load_miniearth
from mmovseg.data.miniearth.domain import DOMAINS, Domain, domain_from_dict, get_domain
from mmovseg.data.miniearth.noise import fractal_noise
from mmovseg.data.miniearth.world import Scene, render

__all__ = [
    "DOMAINS",
    "Domain",
    "MiniEarthReader",
    "Scene",
    "domain_from_dict",
    "fractal_noise",
    "get_domain",
    "load_miniearth",
    "render",
]
