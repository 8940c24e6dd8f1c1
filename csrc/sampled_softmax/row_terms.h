// What a row of the sampled softmax adds to its dot products, and what it sends back.
#pragma once

#include <cmath>
#include <cstdint>

#include "mutant.h"
#include "online_lse.h"
#include "prefetch.h"
#include "ranges.h"
#include "sampled_softmax/sampled_softmax.h"

namespace fastpop {

constexpr float kInf = HUGE_VALF;

// What both passes do with a row: its positive, its bias, its upstream gradients.
class RowTerms {
 public:
  RowTerms(const SampledSoftmax& a, const Tile& tile)
      : a_(a), tile_(tile), padded_(round_up(a.D, tile.lanes)) {
    scale_ = static_cast<float>(a.scale);
    log_count_ = log_of_count(a.K, a.logq, a.exclude_diagonal);
  }

  double prior_term(int64_t id) const {
    if (a_.log_prior_V == nullptr || a_.prior_weight == 0) return 0;
    const float log_p = a_.log_prior_V[id];
    if (!(log_p < kInf)) __atomic_store_n(a_.bad_prior_id, id, __ATOMIC_RELAXED);  // NaN too
    return fastpop::prior_term(a_.prior_weight, log_p);
  }

  // What is added to scale * dot of a negative, in nats.
  double negative_bias(int64_t id) const {
    double bias = prior_term(id);
    if (a_.log_proposal_V != nullptr) {
      const float log_q = a_.log_proposal_V[id];
      if (!std::isfinite(log_q)) __atomic_store_n(a_.bad_proposal_id, id, __ATOMIC_RELAXED);
      [[maybe_unused]] const bool flips =
          a_.mode == SampledSoftmax::Mode::backward && a_.query_BD.dtype == Dtype::bf16;
      bias += negative_correction(MUTANT(7, flips ? -log_q : log_q, log_q), log_count_);
    }
    return bias;
  }

  // The K ids of a group: where they were given, or drawn into `buffer`.
  const int64_t* negatives_of(int64_t group, int64_t* buffer) const {
    if (a_.neg_id_GK != nullptr) return a_.neg_id_GK + group * a_.K;
    alias_draw_group(a_.table, a_.V, a_.seed, a_.step, static_cast<uint32_t>(group), a_.K, buffer);
    return buffer;
  }

  // Numbers of a table that is out of cache, asked for before they are needed.
  void ask_for_bias(int64_t id) const {
    if (a_.log_prior_V != nullptr) prefetch(a_.log_prior_V + id, sizeof(float));
    if (a_.log_proposal_V != nullptr) prefetch(a_.log_proposal_V + id, sizeof(float));
  }

  double positive_bias(int64_t id) const {
    double bias = prior_term(id);
    if (a_.log_proposal_V != nullptr) bias += positive_correction(a_.log_proposal_V[id], a_.logq);
    return bias;
  }

 protected:
  // Upstream gradients of a row and what its probabilities are measured from, once lse is known.
  struct Upstream {
    bool live;
    double lse;
    float d_lse;  // times the probability: the gradient of a negative's logit
    float d_pos;  // the gradient of the positive's logit
  };

  Upstream upstream(int64_t b, double lse) const {
    Upstream up{};
    up.lse = lse;
    const float pos = a_.pos_logit_B[b];
    up.live = std::isfinite(lse) && std::isfinite(pos);
    if (!up.live) return up;
    up.d_lse = a_.d_lse_B[b];
    const double of_pos =
        a_.mode == SampledSoftmax::Mode::fused ? -double(a_.d_lse_B[b]) : double(a_.d_pos_B[b]);
    up.d_pos = static_cast<float>(up.d_lse * std::exp(pos - lse) + of_pos);
    return up;
  }

  // Writes lse and pos_logit of row b; returns lse before it is rounded.
  double finish_forward(int64_t b, float pos_dot, double negatives_log) const {
    const float pos = logit(a_.scale, pos_dot, positive_bias(a_.pos_id_B[b]));
    const double lse = log_add(negatives_log, pos);
    a_.pos_logit_B[b] = pos;
    a_.lse_B[b] = static_cast<float>(lse);
    return lse;
  }

  const SampledSoftmax& a_;
  const Tile& tile_;
  int64_t padded_;
  float scale_;
  double log_count_;
};

}  // namespace fastpop
