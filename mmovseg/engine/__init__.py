"""Training and evaluation: one loop for every project."""

import warnings

# Said by libraries about their own code on every start; a user can do nothing about it.
warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
