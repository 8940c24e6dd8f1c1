// The tiles for AVX-512 with its bfloat16 dot products (twice the multiplications an instruction), and
// for AMX beside it.
#if defined(__x86_64__)
// Headers come before the pragma: what they define must not need this path's instructions.
#include "tile_includes.h"
FASTPOP_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
#define FASTPOP_PATH avx512_bf16
#define FASTPOP_AVX512 1
#define FASTPOP_BF16 1
#include "tile.inc"

namespace fastpop {
namespace {
constexpr Tile with(const char* name, const Bf16Tile* wide_bf16) {
  Tile tile = avx512_bf16::kTile;
  tile.name = name;
  tile.wide_bf16 = wide_bf16;
  return tile;
}

constexpr Tile kAmx = with("avx512_amx", &avx512_bf16::kBf16<avx512_bf16::TileProducts<avx512_bf16::Amx>>);
constexpr Tile kAmxEmulation =
    with("avx512_amx_emulation", &avx512_bf16::kBf16<avx512_bf16::TileProducts<avx512_bf16::AmxEmulation>>);
}  // namespace

const Tile* tile_avx512_bf16() { return &avx512_bf16::kTile; }
const Tile* tile_avx512_amx() { return &kAmx; }
const Tile* tile_avx512_amx_emulation() { return &kAmxEmulation; }
}  // namespace fastpop
FASTPOP_TARGET_END
#endif
