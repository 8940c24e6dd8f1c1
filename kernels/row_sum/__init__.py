"""Sums of rows by id without a wait for the device: gradients of tables, duplicates of an update.

The specification is `fastpop.kernels.sampled_softmax.reference.sum_duplicates`, whose result these
pad: a device cannot say how many different ids there are.
"""
