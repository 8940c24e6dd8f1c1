// Sampled softmax on the CPU: what the binding fills in and the kernel reads.
#pragma once

#include <cstdint>

#include "alias_draw/alias_draw.h"
#include "row_index.h"
#include "sampled_softmax/logit.h"
#include "tile.h"

namespace fastpop {

struct SampledSoftmax {
  // Inputs: see kernels/sampled_softmax/reference.py, whose Inputs these are.
  Matrix query_BD, item_VD;
  int64_t B, V, D, G, K, group_size;
  const int64_t* pos_id_B;
  const int64_t* neg_id_GK;  // or null: the ids are drawn from
  const AliasRow* table;     // this table under (seed, step)
  uint64_t seed, step;
  const int64_t* key_V;         // or null; equal keys are one item (accidental hits)
  const float* log_prior_V;     // or null
  const float* log_proposal_V;  // or null
  double prior_weight, scale;
  LogQ logq;
  bool drop_accidental_hits, exclude_diagonal;

  // What is asked. forward: lse and pos_logit are written. fused: and gradients of
  // sum(d_lse * (lse - pos_logit)). backward: lse and pos_logit are read, gradients of
  // sum(d_lse * lse + d_pos * pos_logit).
  enum class Mode : int { forward = 0, fused = 1, backward = 2 } mode;
  float* lse_B;
  float* pos_logit_B;
  const float* d_lse_B;
  const float* d_pos_B;

  // Gradients wanted, or null. n = index->size().
  const RowIndex* index;
  float* d_query_BD;
  float* d_item_nD;
  double* d_bias_n;  // of the biases: an item has both signs in it, which cancel
  double* d_scale;

  // An id whose log p is NaN or +inf, one whose log q is not finite; untouched without one.
  int64_t* bad_prior_id;
  int64_t* bad_proposal_id;

  int threads;
};

// Whether a fused pass keeps its exponentials within memory bounds.
bool sampled_softmax_can_fuse(int64_t num_rows, int64_t group_size, int64_t K, int64_t D);

void sampled_softmax_cpu(const SampledSoftmax& args, const Tile& tile);

}  // namespace fastpop
