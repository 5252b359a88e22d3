"""Settings every test shares: one thread per process, so that timings and results do not depend on the machine's cores."""

import torch

torch.set_num_threads(1)
