// Where targets stand among all items of scale * q.e + bias: what the binding fills in.
#pragma once

#include <cstdint>

#include "tile.h"

namespace fastpop {

struct TargetRanks {
  // See kernels/target_ranks/reference.py.
  Matrix query_BD, item_VD;
  int64_t B, V, D;
  const float* bias_V;  // or null
  double scale;
  const int64_t* target_offsets;
  const int64_t* target_item;
  const int64_t* exclude_offsets;  // or null
  const int64_t* exclude_item;
  const float* own_M;  // the targets' scores, or null
  int64_t* greater_M;
  int64_t* equal_M;
  float* score_M;
  float* lse_B;
  int threads;
};

void target_ranks_cpu(const TargetRanks& args, const Tile& tile);

}  // namespace fastpop
