"""Config of the toy run."""

from omegaconf import OmegaConf

from mmovseg.config import LazyCall as L
from mmovseg.config import TrainCfg
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.optim import build_optimizer
from mmovseg.engine.schedule import WarmupSchedule
from tests.engine.toy_parts import ToyEvaluator, ToyLoader, ToyModel, toy_mapper, toy_test_loader

model = L(ToyModel)(width=4)
dataloader = dict(
    train=L(ToyLoader)(batch_size=4),
    test=L(toy_test_loader)(
        num_samples=5, mapper=L(toy_mapper)(vocabulary=L(get_vocabulary)(dataset="miniearth", flavour="clean"))
    ),
    evaluator=L(ToyEvaluator)(dataset_name="toy"),
)
optimizer = L(build_optimizer)(base_lr=0.05, weight_decay=0.1, lr_multipliers={"head": 0.5})
lr_multiplier = L(WarmupSchedule)(max_iter="${train.max_iter}", decay="cosine", warmup_iters=2)
train = OmegaConf.structured(TrainCfg)
train.max_iter = 6
train.log_period = 2
train.device = "cpu"
train.tensorboard = False
