// The tiles for AVX2, FMA and F16C: 6 x 16, 12 of 16 registers hold sums.
#if defined(__x86_64__)
// Headers come before the pragma: what they define must not need this path's instructions.
#include "tile_includes.h"
FASTPOP_TARGET("avx2,fma,f16c")
#define FASTPOP_PATH avx2
#define FASTPOP_AVX2 1
#include "tile.inc"

namespace fastpop {
const Tile* tile_avx2() { return &avx2::kTile; }
}  // namespace fastpop
FASTPOP_TARGET_END
#endif
