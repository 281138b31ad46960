"""CMU-Data as 8-bit amplitude in three equal channels: for models that read SAR so (`common/models/sar8.py`).

PIE, DDHR and OpenEarthMap-SAR come as 8-bit pictures of unknown calibration. Here dB is turned into such pictures: 255
stands for 1.75 standard deviations above the mean in dB, which saturates 4 % of the pixels.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.io import FileReader
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.readers import ConvertedSar

_base = get_config("projects/CMU/configs/common/cmu_data.py")
dataloader, teacher_norm, student_norm, input_contract = (
    _base[key] for key in ("dataloader", "teacher_norm", "student_norm", "input_contract")
)

_readers = dataloader.train.mapper.reader.readers
_readers.spacenet6 = L(FileReader)(
    sar_polarisations_in=("HH", "HV", "VH", "VV"),
    sar_polarisations=("VV", "VV", "VV"),
    sar_unit="amplitude8",
    amplitude8_top_db=40.0,
)
_readers.dfc2023 = L(FileReader)(sar_channels=3, sar_unit="amplitude8", amplitude8_top_db=-6.5)
_readers.miniearth = L(ConvertedSar)(
    reader=L(MiniEarthReader)(),
    sar_polarisations_in=("VV", "VH"),
    sar_polarisations=("VV", "VV", "VV"),
    sar_unit="amplitude8",
    amplitude8_top_db=-3.0,
)
student_norm.statistics = "cmu_amplitude8"
input_contract.bands = ("amplitude", "amplitude", "amplitude")
