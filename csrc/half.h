// Numbers of 16 bits, bfloat16 and IEEE half, to float and back: to nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

#include "hd.h"

namespace fastpop {

FASTPOP_HD float float_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

FASTPOP_HD uint32_t bits_of_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

FASTPOP_HD float float_of_bf16(uint32_t bits) { return float_of_bits(bits << 16); }

// Every NaN is the one that torch writes.
FASTPOP_HD uint16_t bf16_of_float(float x) {
  const uint32_t bits = bits_of_float(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

// Up or down at random: noise, 16 even bits, makes the mean of what is written the number itself.
FASTPOP_HD uint16_t bf16_at_random(float x, uint32_t noise) {
  const uint32_t bits = bits_of_float(x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return bf16_of_float(x);
  return static_cast<uint16_t>((bits + noise) >> 16);
}

FASTPOP_HD float float_of_f16(uint32_t bits) {
#ifdef __CUDA_ARCH__
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(static_cast<uint16_t>(bits)));
  return x;
#else
  const uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1f, rest = bits & 0x3ffu;
  if (exponent == 0x1f) return float_of_bits(sign | 0x7f800000u | rest << 13);
  const float tiny = float_of_bits(0x33800000u);  // 2^-24
  if (exponent == 0) return float_of_bits(sign | bits_of_float(static_cast<float>(rest) * tiny));
  return float_of_bits(sign | (exponent + 112) << 23 | rest << 13);
#endif
}

FASTPOP_HD uint16_t f16_of_float(float x) {
#ifdef __CUDA_ARCH__
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  const uint32_t all = bits_of_float(x), size = all & 0x7fffffffu;
  const auto sign = static_cast<uint16_t>(all >> 16 & 0x8000u);
  if (size > 0x7f800000u) return sign | 0x7e00u;
  if (size >= 0x477ff000u) return sign | 0x7c00u;  // from 65520 on
  if (size < 0x38800000u) {                        // below 2^-14: steps of 2^-24
    // Adding 0.5 leaves the number, rounded to 2^-24, in the low bits.
    const float shifted = float_of_bits(size) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of_float(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = size + 0xfffu + (size >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000u) >> 13);
#endif
}

}  // namespace fastpop
