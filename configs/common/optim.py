"""AdamW as MM-OVSeg was trained: base rate 2.5e-4, no decay on norms and embeddings."""

from mmovseg.config import LazyCall as L
from mmovseg.engine.optim import build_optimizer

optimizer = L(build_optimizer)(base_lr=2.5e-4, weight_decay=1e-4, betas=[0.9, 0.999])
