// A sum of exponentials kept as e^largest * sum, so that neither overflows. In nats.
#pragma once

#include <cmath>

#include "hd.h"

namespace fastpop {

struct OnlineLse {
  float largest = -HUGE_VALF;
  double sum = 0;

  // What the next terms are measured from, once their largest is known. 0 while all are -inf.
  FASTPOP_HD float raise(float chunk_largest) {
    if (chunk_largest > largest) {
      sum *= scale_to(chunk_largest);
      largest = chunk_largest;
    }
    return largest == -HUGE_VALF ? 0.0f : largest;
  }

  // One more term, e^x.
  FASTPOP_HD void add(float x) { sum += std::exp(x - raise(x)); }

  // All terms of another sum. Gives the same bits whichever of the two is added to the other.
  FASTPOP_HD void merge(const OnlineLse& other) {
    const float most = other.largest > largest ? other.largest : largest;
    const double mine = sum * scale_to(most), theirs = other.sum * other.scale_to(most);
    sum = mine + theirs;
    largest = most;
  }

  // e^(largest - next): what terms so far shrink by when `next` becomes the largest.
  FASTPOP_HD float scale_to(float next) const { return largest == next ? 1.0f : std::exp(largest - next); }

  // log of the sum; -inf when empty, +inf when a term was.
  FASTPOP_HD double log() const {
    if (largest == HUGE_VALF) return HUGE_VAL;
    if (sum == 0) return -HUGE_VAL;
    return largest + std::log(sum);
  }
};

// log(e^a + e^b).
FASTPOP_HD double log_add(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return a + b;
  const double most = a > b ? a : b, least = a > b ? b : a;
  if (std::isinf(most)) return most;
  return most + std::log1p(std::exp(least - most));
}

}  // namespace fastpop
