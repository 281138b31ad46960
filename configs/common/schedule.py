"""Learning-rate schedules over `train.max_iter` iterations, to be exported as `lr_multiplier`."""

from mmovseg.config import LazyCall as L
from mmovseg.engine.schedule import WarmupSchedule

# Half a cosine to zero.
cosine = L(WarmupSchedule)(max_iter="${train.max_iter}", decay="cosine", warmup_iters=0)
# (1 - t) ** 0.9 to zero.
poly = L(WarmupSchedule)(max_iter="${train.max_iter}", decay="poly", power=0.9, warmup_iters=0)

lr_multiplier = cosine
