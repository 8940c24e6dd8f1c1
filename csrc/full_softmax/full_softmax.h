// Full softmax on the CPU: what the binding fills in and the kernel reads.
#pragma once

#include <cstdint>

#include "tile.h"

namespace fastpop {

struct FullSoftmax {
  // Inputs: see kernels/full_softmax/reference.py, whose Inputs these are.
  Matrix query_BD, item_VD;
  int64_t B, V, D;
  const int64_t* pos_id_B;
  const float* log_prior_V;  // or null
  double prior_weight, scale;

  // Forward writes these, backward reads them.
  float* lse_B;
  float* pos_logit_B;

  // Backward: gradients of sum(d_lse * lse + d_pos * pos_logit); null where not wanted.
  const float* d_lse_B;
  const float* d_pos_B;
  float* d_query_BD;
  float* d_item_VD;
  double* d_bias_V;  // of the biases: an item has both signs in it, which cancel
  double* d_scale;

  int64_t* bad_prior_id;  // an id whose log p is NaN or +inf; untouched without one
  int threads;
};

void full_softmax_forward(const FullSoftmax& args, const Tile& tile);
void full_softmax_backward(const FullSoftmax& args, const Tile& tile);

}  // namespace fastpop
