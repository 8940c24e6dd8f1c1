// Rows of their own negatives: dot products on gathered rows, twice read, the second time from L2;
// d_items in a second sweep over a block's probabilities by the owner of each id.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "sampled_softmax/row_terms.h"
#include "steps.h"
#include "workspace.h"

namespace fastpop {

class GatherPass : RowTerms {
 public:
  GatherPass(const SampledSoftmax& a, const Tile& tile, int threads) : RowTerms(a, tile) {
    wants_items_ = a.d_item_nD != nullptr;
    wants_columns_ = wants_items_ || a.d_bias_n != nullptr;
    gradients_ = a.mode != SampledSoftmax::Mode::forward;
    // Two blocks are under way at a time, of a MiB of numbers together.
    block_rows_ = wants_columns_ ? std::clamp<int64_t>((int64_t{1} << 19) / a.K, threads, 2048) : a.B;
    block_rows_ = std::min(block_rows_, a.B);
    const int64_t kept_rows = wants_columns_ ? block_rows_ : threads;
    for (int64_t i = 0; i < std::min<int64_t>(2, (a.B + block_rows_ - 1) / block_rows_); ++i) {
      Block block{};
      block.prob = memory_.make<float>(kept_rows * a.K);
      if (wants_columns_) {
        block.place = memory_.make<int32_t>(block_rows_ * a.K);
        block.query = memory_.make<float>(block_rows_ * padded_);
        block.d_pos = memory_.make<float>(block_rows_);
      }
      blocks_.push_back(block);
    }
    for (int i = 0; i < threads; ++i) {
      scratch_.push_back(memory_.make<float>(4 * padded_));
      ids_.push_back(a.neg_id_GK == nullptr ? memory_.make<int64_t>(a.K) : nullptr);
    }
    if (a.d_scale != nullptr) d_scale_ = memory_.make<double>(a.B);
  }

  void run() {
    const int threads = a_.threads;
    Steps steps(6);
    const int clear = a_.index == nullptr ? -1 : steps.add(kClear, 0, 2 * threads, {});
    int items = clear, before = -1;
    for (int64_t block = 0; block * block_rows_ < a_.B; ++block) {
      const int64_t num = std::min(block_rows_, a_.B - block * block_rows_);
      // Both blocks' memory is free again once the items of the one before the last are done.
      const int rows = steps.add(kRows, block, std::min<int64_t>(num, 16 * threads), {before});
      before = items == clear ? -1 : items;
      if (wants_columns_) items = steps.add(kItems, block, threads, {rows, items});
    }
    steps.run(threads, [&](const Steps::Piece& piece, int me) { work(piece, me); });
  }

  void finish() {
    if (a_.d_scale == nullptr) return;
    double sum = 0;
    for (int64_t b = 0; b < a_.B; ++b) sum += d_scale_[b];
    *a_.d_scale = sum;
  }

 private:
  enum Kind : int { kClear, kRows, kItems };

  // What is kept of a block of rows; without columns, of a thread's row.
  struct Block {
    float* prob;     // [row, K] logits, then d_lse * probability
    int32_t* place;  // [row, K]
    float* query;    // [row, padded]
    float* d_pos;    // [row]
  };

  void work(const Steps::Piece& piece, int me) {
    const auto [kind, what, number, of] = piece;
    const int i = static_cast<int>(number), parts = static_cast<int>(of);
    if (kind == kClear) return clear(i, parts);
    const Block& block = blocks_[what % static_cast<int64_t>(blocks_.size())];
    const int64_t first = what * block_rows_, num = std::min(block_rows_, a_.B - first);
    if (kind == kRows) {
      const Range mine = part(num, 1, i, parts);
      for (int64_t r = mine.first; r < mine.last; ++r) one_row(block, first, r, wants_columns_ ? r : me, me);
      return;
    }
    for (int64_t r = 0; r < num; ++r) add_row_to_items(block, first, r, i, parts);
  }

  void clear(int i, int parts) {
    const Range r = part(a_.index->size(), 1, i, parts);
    if (a_.d_item_nD != nullptr) std::fill(a_.d_item_nD + r.first * a_.D, a_.d_item_nD + r.last * a_.D, 0.0f);
    if (a_.d_bias_n != nullptr) std::fill(a_.d_bias_n + r.first, a_.d_bias_n + r.last, 0.0);
  }

  void one_row(const Block& block, int64_t first, int64_t r, int64_t kept, int me) {
    const int64_t b = first + r;
    const int64_t* ids = negatives_of(b / a_.group_size, ids_[me]);
    float* z = block.prob + kept * a_.K;
    float* scratch = scratch_[me];
    float* q = scratch + padded_;
    float* pos_item = q + padded_;
    float* d = pos_item + padded_;
    tile_.fetch(a_.query_BD, b, a_.D, padded_, q);
    if (block.query != nullptr) std::copy(q, q + padded_, block.query + r * padded_);
    tile_.gather_dots(a_.item_VD, ids, a_.K, q, a_.D, scratch, z);
    const int64_t pos_id = a_.pos_id_B[b];
    const auto key_of = [&](int64_t id) { return a_.key_V == nullptr ? id : a_.key_V[id]; };
    const bool biased = a_.log_proposal_V != nullptr || a_.log_prior_V != nullptr;
    float largest = -kInf;
    for (int64_t k = 0; k < a_.K; ++k) {
      z[k] = logit(scale_, z[k], biased ? static_cast<float>(negative_bias(ids[k])) : 0.0f);
      const bool is_hit = a_.drop_accidental_hits && key_of(ids[k]) == key_of(pos_id);
      if (is_hit || (a_.exclude_diagonal && k == b)) z[k] = -kInf;
      if (z[k] > largest) largest = z[k];
    }
    tile_.fetch(a_.item_VD, pos_id, a_.D, padded_, pos_item);
    const float pos_dot = tile_.dot(q, pos_item, padded_);
    const bool backward = a_.mode == SampledSoftmax::Mode::backward;
    OnlineLse negatives;
    double lse = backward ? a_.lse_B[b] : 0.0;
    const float reference = backward ? static_cast<float>(std::rint(lse)) : negatives.raise(largest);
    const int64_t whole = a_.K / tile_.lanes * tile_.lanes;
    negatives.sum = tile_.exp_row(z, whole, reference);
    if (whole < a_.K) {
      float tail[64];
      std::fill(tail, tail + tile_.lanes, -kInf);
      std::copy(z + whole, z + a_.K, tail);
      negatives.sum += tile_.exp_row(tail, tile_.lanes, reference);
      std::copy(tail, tail + (a_.K - whole), z + whole);
    }
    if (!backward) {
      lse = finish_forward(b, pos_dot, negatives.log());
      if (!gradients_) return;
    }
    const Upstream up = upstream(b, lse);
    if (block.d_pos != nullptr) {
      block.d_pos[r] = up.d_pos;
      for (int64_t k = 0; k < a_.K; ++k) block.place[r * a_.K + k] = a_.index->place(ids[k]);
    }
    if (up.live) {
      const double from = !backward && negatives.largest == -kInf ? -HUGE_VAL : reference;
      const float factor = static_cast<float>(up.d_lse * std::exp(from - lse));
      for (int64_t k = 0; k < a_.K; ++k) z[k] *= factor;
    } else {
      std::fill(z, z + a_.K, 0.0f);
    }
    if (a_.d_query_BD == nullptr && d_scale_ == nullptr) return;
    std::fill(d, d + padded_, 0.0f);
    tile_.gather_sum(a_.item_VD, ids, a_.K, z, a_.D, scratch, d);
    if (up.d_pos != 0) tile_.axpy(up.d_pos, pos_item, a_.D, d);
    if (d_scale_ != nullptr) d_scale_[b] = up.live ? double(tile_.dot(q, d, padded_)) : 0.0;
    if (a_.d_query_BD == nullptr) return;
    for (int64_t j = 0; j < a_.D; ++j) a_.d_query_BD[b * a_.D + j] = static_cast<float>(a_.scale) * d[j];
  }

  // The part that row n of the gradient is in: popular ids, often neighbours, are spread.
  static int owner(int32_t n, int parts) {
    const uint64_t mixed = static_cast<uint32_t>(n) * uint32_t{2654435761u};
    return static_cast<int>((mixed * static_cast<uint64_t>(parts)) >> 32);
  }

  // Row r's share of part i of the table's gradient.
  void add_row_to_items(const Block& block, int64_t first, int64_t r, int i, int parts) {
    const float* q = block.query + r * padded_;
    const auto add = [&](int32_t n, float d) {
      if (d == 0 || owner(n, parts) != i) return;
      if (a_.d_bias_n != nullptr) a_.d_bias_n[n] += d;
      if (wants_items_) tile_.axpy(static_cast<float>(a_.scale) * d, q, a_.D, a_.d_item_nD + n * a_.D);
    };
    const float* p = block.prob + r * a_.K;
    const int32_t* place = block.place + r * a_.K;
    for (int64_t k = 0; k < a_.K; ++k) add(place[k], p[k]);
    add(a_.index->place(a_.pos_id_B[first + r]), block.d_pos[r]);
  }

  Workspace memory_;
  int64_t block_rows_;
  bool wants_items_, wants_columns_, gradients_;
  std::vector<Block> blocks_;
  double* d_scale_ = nullptr;  // [B]
  std::vector<float*> scratch_;
  std::vector<int64_t*> ids_;  // [K] drawn
};

}  // namespace fastpop
