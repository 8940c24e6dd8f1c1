// Which path runs here.
#include "tile.h"

#include <cstring>
#include <initializer_list>

namespace fastpop {

const Tile* find_tile(const char* name) {
  if (std::strcmp(name, "baseline") == 0) return tile_baseline();
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (std::strcmp(name, "avx2") == 0 && avx2) return tile_avx2();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (std::strcmp(name, "avx512") == 0 && avx512) return tile_avx512();
  if (std::strcmp(name, "avx512_bf16") == 0 && avx512 && __builtin_cpu_supports("avx512bf16"))
    return tile_avx512_bf16();
#endif
  return nullptr;
}

const Tile* best_tile() {
  for (const char* name : {"avx512_bf16", "avx512", "avx2"})
    if (const Tile* tile = find_tile(name)) return tile;
  return tile_baseline();
}

}  // namespace fastpop
