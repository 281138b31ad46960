r"""CMU with the paper's recipe, ViT-B/16 on CMU-Data (Sec. 3.2.2, 4.1.2): for MM-OVSeg on 8-bit SAR.

Its encoder fits `configs/mmovseg/{pie_cloud,pie_clean,ddhr_sk,ddhr_sk_to_ch,oem_thick,oem_thin}_vitb16.py`:

    tools/export_weights.py --checkpoint output/cmu/vitb16/model_final.safetensors --part student.model \
        --output sar.safetensors
    tools/train_net.py --config-file configs/mmovseg/ddhr_sk_vitb16.py model.sar_encoder.weights=sar.safetensors

Those read SAR with constants of their own, and say so in a warning: `mmovseg_ddhr_sk_vitb16.py` shows how a config
reads it by the measured statistics of its data, as this one does. `--eval-only` measures an encoder on MiniEarth.
"""

from mmovseg.config import get_config

model = get_config("projects/CMU/configs/common/aligner_vitb16.py").model
_data = get_config("projects/CMU/configs/common/cmu_data_amplitude8.py")
dataloader = _data.dataloader
dataloader.update(get_config("projects/CMU/configs/common/encoder_eval_mix.py").dataloader)
dataloader.test.mapper.reader = dataloader.train.mapper.reader
train = get_config("common/train.py").train
optimizer = get_config("common/optim.py").optimizer
lr_multiplier = get_config("common/schedule.py").cosine

model.student.in_chans = 3
model.student_norm, model.teacher_norm, model.input_contract = (
    _data[key] for key in ("student_norm", "teacher_norm", "input_contract")
)

optimizer.base_lr = 3e-4
optimizer.weight_decay = 1e-4
# The paper names no number of steps. Its Table A2 has 1.05 kg CO2 for CMU at 344 ms a step, 3.90 kg for MM-OVSeg at 956
# ms and 120k steps: if CO2 goes with time, CMU took 90k steps, 29 epochs of 25,087 pairs.
train.max_iter = 90_000
train.eval_period = -1
train.output_dir = "output/cmu/vitb16"
lr_multiplier.warmup_iters = 1000  # our choice
