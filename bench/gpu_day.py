"""One unattended command for a card: tests, training, times beside predictions, peers, sanitizers.

    python bench/gpu_day.py              # on a card, nine minutes at most
    python bench/gpu_day.py --plan       # its sections and their budgets
    python bench/gpu_day.py --cpu        # the same code, small, on a processor
    python bench/gpu_day.py --read FILE  # a record as a table

Every result is a line of gpu-day.jsonl, in the folder $OUT or in bench/records, on disk before the next thing
starts. A section that hangs, crashes or fails loses no other. docs/gpu-day.md says what to take along and
how to read the record.
"""

import sys

from gpu.command import main
from gpu.plan import DAY

if __name__ == "__main__":
    sys.exit(main("gpu-day", DAY, __doc__))
