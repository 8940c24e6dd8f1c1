// Energies of scores on the CPU: moments of rows, and per-context sums of scores.
#pragma once

#include <cstdint>

#include "tile.h"

namespace fastpop {

struct RowMoments {
  Matrix rows_ND;          // float32, bfloat16 or float16; or null data and
  const double* wide_ND;   // float64, contiguous
  const double* extra_NM;  // M more columns, contiguous, or null
  const double* weight_N;  // or null: 1 each
  int64_t N, D, M;
  double* weight;      // their sum
  double* mean_R;      // R = D + M
  double* scatter_RR;  // sum of w (x - mean)(x - mean)^T
  int threads;
};

// Bitwise independent of the number of threads.
void row_moments(const RowMoments& args, const Tile& tile);

struct ScoreSums {
  Matrix query_CD, item_VD;
  const float* bias_V;  // or null
  const float* b_V;     // the direction
  int64_t C, V, D;
  double scale;
  double cap;        // scores are cap * tanh(score / cap); 0: as they are
  double* square_C;  // sum over items of (s - mean)^2
  double* along_C;   // sum over items of s * b
  int threads;
};

void score_sums(const ScoreSums& args, const Tile& tile);

}  // namespace fastpop
