// Rows that may not be there, as the tiles take them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tile.h"

namespace fastpop {

// Row `row` of m and zeros from dim to padded; zeros alone where row < 0. The tile says what of: float
// of a Tile, bfloat16 as it is of a Bf16Tile.
template <class AnyTile, class Number>
inline void fetch_or_clear(const AnyTile& tile, const Matrix& m, int64_t row, int64_t dim, int64_t padded,
                           Number* out) {
  if (row < 0) {
    std::fill(out, out + padded, Number{0});
  } else {
    tile.fetch(m, row, dim, padded, out);
  }
}

}  // namespace fastpop
