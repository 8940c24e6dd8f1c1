"""The second command for a card: why its kernels take as long as they do.

    python bench/gpu_profile.py          # on a card, four minutes at most
    python bench/gpu_profile.py --plan, --cpu, --read FILE, as bench/gpu_day.py

Six kernels under ncu, other tiles for the three passes of the softmax, and the figures that these are
compared with, before and after, on the same card. Writes gpu-profile.jsonl as gpu_day.py does.
"""

import sys

from gpu.command import main
from gpu.plan import PROFILE

if __name__ == "__main__":
    sys.exit(main("gpu-profile", PROFILE, __doc__))
