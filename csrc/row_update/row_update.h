// Row-wise optimiser steps on the CPU: what the binding fills in and the kernel reads.
#pragma once

#include <cstdint>

#include "radix_sort.h"
#include "row_update/rule.h"
#include "tile.h"

namespace fastpop {

// base^t for any t >= 0 in four multiplications: the digits of t to base 64, each with its table.
struct Powers {
  static constexpr int kDigits = 4, kBase = 64;
  double base;
  double of[kDigits][kBase];
};

struct RowUpdate {
  // See kernels/row_update/reference.py. Columns of a row lie side by side, rows do not overlap.
  void* table_VD;
  Dtype dtype;
  int64_t table_stride, V, D;
  const int64_t* id_n;
  int64_t n;
  Matrix rows_nD;
  float* mean_VD;  // adam
  int64_t mean_stride;
  float* square_V;  // adagrad, adam
  int64_t* step_V;  // adam
  double lr, beta1, beta2, eps;
  RowRule rule;
  int64_t rounding_seed, rounding_step;  // of a bfloat16 table; step < 0: to nearest
  int threads;

  // Made by row_update_cpu. order_n: ids in order with the slot of each, or null: id_n is in order.
  const SortItem* order_n;
  const Powers* beta1_power;
  const Powers* beta2_power;
};

// Makes the step, or returns the position of the first id out of [0, V) and changes nothing; -1: done.
int64_t row_update_cpu(RowUpdate args, const Tile& tile);

}  // namespace fastpop
