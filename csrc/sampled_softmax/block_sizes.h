// How a group's columns and rows are cut, so that what is kept of them fits in cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ranges.h"
#include "sampled_softmax/sampled_softmax.h"
#include "tile.h"

namespace fastpop {

// Bytes of exponentials kept by one block of rows, by which it is cut: the same for any number of threads,
// since sums over rows are rounded at the ends of blocks. The larger number where a block would have fewer
// than kBlockRows otherwise: short ones cost time.
constexpr int64_t kBlockBytes = int64_t{1} << 20;
constexpr int64_t kMostBlockBytes = int64_t{5} << 19;
constexpr int64_t kBlockRows = 36;
// Bytes of packed items alive at once when exponentials are not kept.
constexpr int64_t kWindowBytes = int64_t{8} << 20;

struct BlockSizes {
  int64_t window;  // columns packed at a time
  int64_t chunks;  // of kChunk columns, in a window
  int64_t rows;    // of a block, whole row_units
};

// column_bytes: of one packed column; exp_bytes: of one kept exponential. B = 0 does not come here.
inline BlockSizes block_sizes(const SampledSoftmax& a, int64_t columns, int64_t column_bytes,
                              int64_t exp_bytes, int64_t strip, int64_t row_unit) {
  BlockSizes sizes{};
  sizes.window = columns;
  if (a.mode != SampledSoftmax::Mode::fused)
    sizes.window =
        std::min(columns, std::max<int64_t>(kChunk, kWindowBytes / column_bytes / kChunk * kChunk));
  sizes.chunks = (sizes.window + kChunk - 1) / kChunk;

  const int64_t row_bytes = exp_bytes * sizes.window;
  const int64_t budget = std::clamp(kBlockRows * row_bytes, kBlockBytes, kMostBlockBytes);
  int64_t rows = budget / std::max<int64_t>(row_bytes, exp_bytes) / row_unit * row_unit;
  // Without gradients nothing is kept.
  if (a.mode == SampledSoftmax::Mode::forward) rows = std::numeric_limits<int64_t>::max();
  const int64_t most_rows = 96 / row_unit * row_unit;
  rows = std::clamp<int64_t>(rows, row_unit, most_rows);
  const int64_t unit = round_up(2 * strip, row_unit);
  const int64_t most = std::min(a.group_size, a.B);
  const int64_t blocks = (most + rows - 1) / rows;
  sizes.rows = round_up((most + blocks - 1) / blocks, std::min(rows, unit));
  return sizes;
}

}  // namespace fastpop
