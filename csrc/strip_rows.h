// Products of fp32 exponentials for strips of any number of rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tile.h"

namespace fastpop {

// Floats that add_strip_rows wants for a strip that is not whole tiles.
inline int64_t strip_scratch_size(int64_t padded) { return kTileRows * (kChunkStride + padded); }

// out[num, padded] = keep[num] * out + e[num, depth] . items[depth, padded]; rows of e are kChunkStride
// apart. Tile::add_rows takes kTileRows rows; the last of a strip of 16 go through `scratch` beside zeros.
inline void add_strip_rows(const Tile& tile, int64_t num, const float* e, int64_t depth, const float* items,
                           int64_t padded, const float* keep, float* scratch, float* out) {
  const int64_t whole = num / kTileRows * kTileRows;
  for (int64_t i = 0; i < whole; i += kTileRows)
    tile.add_rows(e + i * kChunkStride, kChunkStride, depth, items, padded, keep + i, out + i * padded);
  if (whole == num) return;
  const int64_t left = num - whole;
  float* e_buffer = scratch;
  float* out_buffer = scratch + kTileRows * kChunkStride;
  float keep_buffer[kTileRows] = {};
  std::copy(keep + whole, keep + num, keep_buffer);
  std::copy(e + whole * kChunkStride, e + num * kChunkStride, e_buffer);
  std::fill(e_buffer + left * kChunkStride, e_buffer + kTileRows * kChunkStride, 0.0f);
  std::copy(out + whole * padded, out + num * padded, out_buffer);
  std::fill(out_buffer + left * padded, out_buffer + kTileRows * padded, 0.0f);
  tile.add_rows(e_buffer, kChunkStride, depth, items, padded, keep_buffer, out_buffer);
  std::copy(out_buffer, out_buffer + left * padded, out + whole * padded);
}

}  // namespace fastpop
