// The tiles for AVX-512: 6 x 64, 24 of 32 registers hold sums.
#if defined(__x86_64__)
// Headers come before the pragma: what they define must not need this path's instructions.
#include "tile_includes.h"
FASTPOP_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#define FASTPOP_PATH avx512
#define FASTPOP_AVX512 1
#include "tile.inc"

namespace fastpop {
const Tile* tile_avx512() { return &avx512::kTile; }
}  // namespace fastpop
FASTPOP_TARGET_END
#endif
