// What is added to scale * dot of a candidate, in nats: the same numbers on the CPU and on a GPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "hd.h"

namespace fastpop {

enum class LogQ : int { none = 0, standard = 1, corrected = 2 };

// Weight 0 ignores the prior: 0 * -inf is 0 here. With any other, a negative one too, -inf removes.
FASTPOP_HD double prior_term(double prior_weight, float log_p) {
  if (prior_weight == 0) return 0.0;
  return log_p == -HUGE_VALF ? -HUGE_VAL : prior_weight * log_p;
}

// log_count: log K where logq is "corrected", whose negatives stand for the whole catalogue; else 0.
FASTPOP_HD double negative_correction(float log_q, double log_count) { return -(log_q + log_count); }

// In "corrected" the positive is there with probability one: nothing to correct.
FASTPOP_HD double positive_correction(float log_q, LogQ logq) {
  return logq == LogQ::standard ? -static_cast<double>(log_q) : 0.0;
}

// The number that log_count is the log of: without the in-batch diagonal one fewer was drawn.
FASTPOP_HD double log_of_count(int64_t K, LogQ logq, bool exclude_diagonal) {
  const int64_t drawn = K - (exclude_diagonal ? 1 : 0);
  return logq == LogQ::corrected ? std::log(static_cast<double>(drawn > 1 ? drawn : 1)) : 0.0;
}

// A candidate of bias -inf is not there, whatever its dot product.
template <class Number>
FASTPOP_HD float logit(Number scale, float dot, Number bias) {
  return static_cast<float>(bias == -HUGE_VALF ? bias : scale * dot + bias);
}

}  // namespace fastpop
