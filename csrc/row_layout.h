// How a team of lanes holds one row of D numbers, and how rows are read and written.
//
// A team of T lanes takes a row in vectors of kVec numbers, 16 bytes: lane r holds vectors r, T + r,
// 2 T + r, ..., E numbers in all, so that eight lanes read one line of 128 bytes at a time. Numbers
// from D on are zeros. Rows that 16-byte loads do not fit (an odd D, a stride, an address) are read
// number by number through Strided.
#pragma once

#include <cstdint>
#include <cstring>

#include "half.h"
#include "hd.h"
#include "tile.h"

namespace fastpop {

constexpr int kMaxDim = 1024;

template <int E>
struct Numbers {
  float x[E];
};

struct alignas(16) Bits128 {
  uint32_t w[4];
};

// 16 bytes if wanted, else zeros. On a GPU one predicated load without a branch, so that a loop over
// rows starts all of its loads before the first is waited for. AGAIN: data that this kernel also
// writes, which must not come from the read-only cache.
template <bool AGAIN>
FASTPOP_HD Bits128 load128(const void* at, bool wanted) {
  Bits128 bits{{0, 0, 0, 0}};
#ifdef __CUDA_ARCH__
#define FASTPOP_LOAD128(KIND)                                                                  \
  asm("{.reg .pred p; setp.ne.b32 p, %5, 0; @p ld.global" KIND ".v4.u32 {%0,%1,%2,%3}, [%4];}" \
      : "+r"(bits.w[0]), "+r"(bits.w[1]), "+r"(bits.w[2]), "+r"(bits.w[3])                     \
      : "l"(at), "r"(static_cast<int>(wanted)))
  if constexpr (AGAIN) {
    FASTPOP_LOAD128("");
  } else {
    FASTPOP_LOAD128(".nc");
  }
#undef FASTPOP_LOAD128
#else
  if (wanted) memcpy(&bits, at, 16);
#endif
  return bits;
}

FASTPOP_HD void store128(void* at, const Bits128& bits) {
#ifdef __CUDA_ARCH__
  *static_cast<uint4*>(at) = make_uint4(bits.w[0], bits.w[1], bits.w[2], bits.w[3]);
#else
  memcpy(at, &bits, 16);
#endif
}

// What a row is made of: `Bits` is a vector as it lies in memory.
struct F32 {
  using Bits = Bits128;
  static constexpr int kVec = 4, kBytes = 4;
  static FASTPOP_HD float number(const Bits& bits, int i) { return float_of_bits(bits.w[i]); }
  static FASTPOP_HD void set(Bits& bits, int i, float x) { bits.w[i] = bits_of_float(x); }
};

struct Bf16Bits {
  static FASTPOP_HD float wide(uint32_t bits) { return float_of_bf16(bits); }
  static FASTPOP_HD uint16_t narrow(float x) { return bf16_of_float(x); }
};

struct F16Bits {
  static FASTPOP_HD float wide(uint32_t bits) { return float_of_f16(bits); }
  static FASTPOP_HD uint16_t narrow(float x) { return f16_of_float(x); }
};

template <class B>
struct Half {
  using Bits = Bits128;
  static constexpr int kVec = 8, kBytes = 2;
  static FASTPOP_HD float number(const Bits& bits, int i) {
    return B::wide(i % 2 == 0 ? bits.w[i / 2] & 0xffffu : bits.w[i / 2] >> 16);
  }
  static FASTPOP_HD void set(Bits& bits, int i, float x) {
    const uint32_t half = B::narrow(x);
    uint32_t& word = bits.w[i / 2];
    word = i % 2 == 0 ? (word & 0xffff0000u) | half : (word & 0xffffu) | half << 16;
  }
};
using BF16 = Half<Bf16Bits>;
using F16 = Half<F16Bits>;

struct Strided {
  using Bits = float;
  static constexpr int kVec = 1, kBytes = 0;
  static FASTPOP_HD float number(const Bits& bits, int) { return bits; }
  static FASTPOP_HD void set(Bits& bits, int, float x) { bits = x; }
};

// One number of any matrix.
FASTPOP_HD float number_at(const Matrix& m, int64_t row, int64_t column) {
  const int64_t at = row * m.row_stride + column * m.col_stride;
  if (m.dtype == Dtype::f32) return static_cast<const float*>(m.data)[at];
  const uint16_t bits = static_cast<const uint16_t*>(m.data)[at];
  return m.dtype == Dtype::bf16 ? float_of_bf16(bits) : float_of_f16(bits);
}

FASTPOP_HD void set_number(const Matrix& m, int64_t row, int64_t column, float x) {
  const int64_t at = row * m.row_stride + column * m.col_stride;
  void* data = const_cast<void*>(m.data);
  if (m.dtype == Dtype::f32) {
    static_cast<float*>(data)[at] = x;
  } else {
    static_cast<uint16_t*>(data)[at] = m.dtype == Dtype::bf16 ? bf16_of_float(x) : f16_of_float(x);
  }
}

// A row as lane r of a team of T lanes holds it, E numbers a lane.
template <class S, int T, int E>
struct Layout {
  static constexpr int kLanes = T, kNumbers = E, kVec = S::kVec, kVectors = E / S::kVec;
  // Rows in flight: eight 16-byte loads a lane, 4 KB a warp, before the first is used.
  static constexpr int kRows = kVectors >= 8 ? 1 : 8 / kVectors;

  struct Row {
    typename S::Bits v[kVectors];
  };

  // The first number of vector n.
  static FASTPOP_HD int at(int r, int n) { return (n * T + r) * kVec; }

  template <bool AGAIN = false>
  static FASTPOP_HD void load(const Matrix& m, int64_t row, int64_t D, int r, Row& out) {
    // int64 before the multiply: row * stride passes 2^31 at V = 20M, D = 128.
    const int64_t start = row * m.row_stride;
    FASTPOP_UNROLL
    for (int n = 0; n < kVectors; ++n) {
      if constexpr (S::kBytes == 0) {
        out.v[n] = at(r, n) < D ? number_at(m, row, at(r, n)) : 0.0f;
      } else {
        const char* from = static_cast<const char*>(m.data) + (start + at(r, n)) * S::kBytes;
        out.v[n] = load128<AGAIN>(from, at(r, n) < D);
      }
    }
  }

  static FASTPOP_HD void store(const Matrix& m, int64_t row, int64_t D, int r, const Row& in) {
    const int64_t start = row * m.row_stride;
    FASTPOP_UNROLL
    for (int n = 0; n < kVectors; ++n) {
      if (at(r, n) >= D) continue;
      if constexpr (S::kBytes == 0) {
        set_number(m, row, at(r, n), in.v[n]);
      } else {
        char* data = static_cast<char*>(const_cast<void*>(m.data));
        store128(data + (start + at(r, n)) * S::kBytes, in.v[n]);
      }
    }
  }

  // The same places of a row of contiguous fp32 numbers, which this kernel may also write.
  static FASTPOP_HD void load_floats(const float* row, int64_t D, int r, Numbers<E>& out) {
    FASTPOP_UNROLL
    for (int n = 0; n < kVectors; ++n) {
      FASTPOP_UNROLL
      for (int i = 0; i < kVec; i += 4) {
        float* x = out.x + n * kVec + i;
        if constexpr (kVec == 1) {
          *x = at(r, n) < D ? row[at(r, n)] : 0.0f;
        } else {
          const Bits128 bits = load128<true>(row + at(r, n) + i, at(r, n) < D);
          FASTPOP_UNROLL
          for (int j = 0; j < 4; ++j) x[j] = float_of_bits(bits.w[j]);
        }
      }
    }
  }

  static FASTPOP_HD void store_floats(float* row, int64_t D, int r, const Numbers<E>& in) {
    FASTPOP_UNROLL
    for (int n = 0; n < kVectors; ++n) {
      if (at(r, n) >= D) continue;
      FASTPOP_UNROLL
      for (int i = 0; i < kVec; i += 4) {
        const float* x = in.x + n * kVec + i;
        if constexpr (kVec == 1) {
          row[at(r, n)] = *x;
        } else {
          store128(row + at(r, n) + i, Bits128{{bits_of_float(x[0]), bits_of_float(x[1]), bits_of_float(x[2]),
                                                bits_of_float(x[3])}});
        }
      }
    }
  }

  static FASTPOP_HD float dot(const Row& row, const Numbers<E>& q) {
    float sum = 0;
    FASTPOP_UNROLL
    for (int n = 0; n < kVectors; ++n) FASTPOP_UNROLL
    for (int i = 0; i < kVec; ++i) sum += S::number(row.v[n], i) * q.x[n * kVec + i];
    return sum;
  }

  // y += f * row.
  static FASTPOP_HD void axpy(float f, const Row& row, Numbers<E>& y) {
    FASTPOP_UNROLL
    for (int n = 0; n < kVectors; ++n) FASTPOP_UNROLL
    for (int i = 0; i < kVec; ++i) y.x[n * kVec + i] += f * S::number(row.v[n], i);
  }

  // row -= f * x, rounded to the row's dtype.
  static FASTPOP_HD void subtract(float f, const Numbers<E>& x, Row& row) {
    FASTPOP_UNROLL
    for (int n = 0; n < kVectors; ++n) FASTPOP_UNROLL
    for (int i = 0; i < kVec; ++i) S::set(row.v[n], i, S::number(row.v[n], i) - f * x.x[n * kVec + i]);
  }
};

// Whether 16-byte loads fit every row of m.
inline bool takes_vectors(const Matrix& m, int64_t D) {
  const int64_t bytes = m.dtype == Dtype::f32 ? 4 : 2;
  return m.col_stride == 1 && D * bytes % 16 == 0 && m.row_stride * bytes % 16 == 0 &&
         reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
}

// f(Layout<...>{}) with the layout for rows of D numbers. 8 lanes up to D = 256, then a warp.
template <class S, class F>
void with_layout_of(int64_t D, F f) {
  if (D <= 64) return f(Layout<S, 8, 8>{});
  if (D <= 128) return f(Layout<S, 8, 16>{});
  if (D <= 256) return f(Layout<S, 8, 32>{});
  f(Layout<S, 32, 32>{});
}

template <class F>
void with_layout(Dtype dtype, bool vectors, int64_t D, F f) {
  if (!vectors) return with_layout_of<Strided>(D, f);
  if (dtype == Dtype::f32) return with_layout_of<F32>(D, f);
  if (dtype == Dtype::bf16) return with_layout_of<BF16>(D, f);
  with_layout_of<F16>(D, f);
}

}  // namespace fastpop
