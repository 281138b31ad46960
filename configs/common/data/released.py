"""8-bit pairs the way the authors' checkpoints were trained and tested: their decoding, geometry and class words.

SAR is not registered with the optical image here: a 256-pixel tile lies in the corner of a grey canvas, of a 1024-pixel
tile only the top left 384 are seen. `dataloader.test.mapper.sar_geometry=paired` shows what that costs.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import choose_sets
from mmovseg.data.transforms import PilResizeShortestEdge

dataloader = get_config("common/data/pairs8.py").dataloader
choose_sets(dataloader, train="pie_cloud", test="pie_cloud", flavour="released")

_resize = L(PilResizeShortestEdge)(short_edge_px=384, max_size_px=1333)
for _part in (dataloader.train, dataloader.test):
    _part.mapper.sar_geometry = "official"
    _part.mapper.geometry[0] = _resize
    _part.mapper.reader.decoder = "pil"
    _part.mapper.reader.sar_channels = None  # PIL gives three
