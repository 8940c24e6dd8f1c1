"""Sums of rows by id without a wait for the device: gradients of tables, duplicates of an update.

The specification is `fastpop.kernels.sampled_softmax.reference.sum_duplicates`, whose result these
pad: a device cannot say how many different ids there are.
"""

from fastpop.kernels.row_sum._cuda import sort_ids as sort_ids
from fastpop.kernels.row_sum._cuda import sum_entries as sum_entries
