// Which path runs here.
#include "tile.h"

#include <cstring>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastpop {
namespace {

#if defined(__x86_64__) && defined(__linux__)
// Tile registers with bfloat16 products, that the system saves, and gives to this process: it hands
// them out on request, once, for all threads.
bool ask_for_amx() {
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24, kSystemSaves = 1u << 27;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTiles) == 0) return false;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & kSystemSaves) == 0) return false;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  if ((low & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#elif defined(FASTPOP_X86_PATHS)
bool ask_for_amx() { return false; }
#endif

}  // namespace

const Tile* find_tile(const char* name) {
  const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
  if (is("baseline")) return tile_baseline();
#if defined(FASTPOP_X86_PATHS)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (is("avx2") && avx2) return tile_avx2();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (is("avx512") && avx512) return tile_avx512();
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (is("avx512_bf16") && bf16) return tile_avx512_bf16();
  if (is("avx512_amx_emulation") && bf16) return tile_avx512_amx_emulation();
  if (is("avx512_amx") && bf16) {
    static const bool amx = ask_for_amx();
    if (amx) return tile_avx512_amx();
  }
#endif
  return nullptr;
}

const Tile* best_tile() {
  for (const char* name : {"avx512_amx", "avx512_bf16", "avx512", "avx2"})
    if (const Tile* tile = find_tile(name)) return tile;
  return tile_baseline();
}

}  // namespace fastpop
