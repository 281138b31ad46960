"""mmovseg: open-vocabulary segmentation of optical and SAR imagery, through clouds, on Detectron2."""

import warnings

# The libraries below still decorate functions with torch.jit.script when they are imported; nobody here can mend that.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)

__version__ = "0.1.0.dev0"
