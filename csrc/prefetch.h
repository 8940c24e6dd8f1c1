// Asks for memory before it is needed. Addresses may lie anywhere: nothing is read.
#pragma once

#include <cstdint>

#include "tile.h"

namespace fastpop {

constexpr int64_t kLine = 64;  // bytes

// The lines of `bytes` bytes from p on, a line of each 64 from p. Inlined by force: GCC takes a function
// that does nothing but prefetch for one without effect, and drops calls of it.
template <bool to_write = false>
inline __attribute__((always_inline)) void prefetch(const void* p, int64_t bytes) {
  const char* at = static_cast<const char*>(p);
  for (int64_t byte = 0; byte < bytes; byte += kLine) __builtin_prefetch(at + byte, to_write ? 1 : 0);
}

// The first dim columns of a row, where they lie side by side.
inline __attribute__((always_inline)) void prefetch_row(const Matrix& m, int64_t row, int64_t dim) {
  const int64_t size = m.dtype == Dtype::f32 ? 4 : 2;
  prefetch(static_cast<const char*>(m.data) + row * m.row_stride * size, dim * size);
}

}  // namespace fastpop
