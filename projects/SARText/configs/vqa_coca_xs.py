"""Questions about SAR images for the CoCa of stage 2, which learns to go on from the question with the answer.

tools/train_net.py --config-file projects/SARText/configs/vqa_coca_xs.py
"""

from mmovseg.config import get_config

_base = get_config("projects/SARText/configs/coca_sar_xs.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
dataloader = get_config("projects/SARText/configs/common/data_tasks.py").questions_turned

model.weights = "output/sartext/coca_sar_xs/model_final.safetensors"
model.contrastive_weight = 0.0  # a question is no description
dataloader.train.batch_size = 32
train.max_iter = 300  # 300 it * 32 questions/it = three quarters of the 13,000
train.output_dir = "output/sartext/vqa_coca_xs"
