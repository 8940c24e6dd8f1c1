// Sampled softmax on the CPU, forward and backward, for shared, grouped and per-row negatives.
//
// Rows that share negatives (TilePass): the team of threads takes a group's negatives, sorted, each
// id once with log(its count) in its bias, packs them, and goes through the rows in blocks:
//   1. each thread its rows, chunk by chunk: logits in a register tile, exponentials in L1 against
//      the largest logit so far, d_query += e . items at once; e stays in a buffer of the block;
//   2. each row's log-sum-exp; only now is p = e * exp(chunk's reference - lse) known;
//   3. each thread its columns: d_items += e^T . (f q), q scaled by the row's weight and by that
//      factor, so that e itself is never touched again.
// A thread owns rows in 1 and 2, columns (table rows) in 3: no atomics, no copies per thread, and
// sums in a fixed order. Cost: 2 B K D FLOPs forward, 6 fused, 6 backward alone (it makes the logits
// again); memory: packed items (2 K D numbers, a window of them when K is large) and a block of
// exponentials (2.5 MiB at two threads).
//
// Rows of their own negatives (GatherPass): dot products on gathered rows, twice read, the second
// time from L2; d_items in a second sweep over a block's probabilities by the owner of each id.
#include "sampled_softmax/sampled_softmax.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "barrier.h"
#include "online_lse.h"
#include "radix_sort.h"
#include "ranges.h"
#include "workspace.h"

namespace fastpop {
namespace {

constexpr float kInf = HUGE_VALF;
// Rows that share negatives and are fewer than this are not worth packing for.
constexpr int64_t kFewRows = 8;
// Bytes of exponentials kept by one block of rows; with more threads, more.
constexpr int64_t kBlockBytes = int64_t{5} << 19;
// Bytes of packed items alive at once when exponentials are not kept.
constexpr int64_t kWindowBytes = int64_t{8} << 20;
constexpr int64_t kFusedBytes = int64_t{32} << 20;

// What both passes do with a row: its positive, its bias, its upstream gradients.
class Rows {
 public:
  Rows(const SampledSoftmax& a, const Tile& tile)
      : a_(a), tile_(tile), padded_(round_up(a.D, tile.lanes)) {
    scale_ = static_cast<float>(a.scale);
    log_count_ = log_of_count(a.K, a.logq, a.exclude_own_slot);
  }

  int64_t padded() const { return padded_; }

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
      if (!std::isfinite(log_q)) __atomic_store_n(a_.bad_law_id, id, __ATOMIC_RELAXED);
      bias += negative_correction(log_q, log_count_);
    }
    return bias;
  }

  // The K ids of a group: where they were given, or drawn into `room`.
  const int64_t* negatives_of(int64_t group, int64_t* room) const {
    if (a_.neg_id_GK != nullptr) return a_.neg_id_GK + group * a_.K;
    alias_draw_group(a_.table, a_.V, a_.seed, a_.step, static_cast<uint32_t>(group), a_.K, room);
    return room;
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
    const float pos = static_cast<float>(a_.scale * pos_dot + positive_bias(a_.pos_id_B[b]));
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

// One group's negatives: sorted, each id once.
struct Group {
  int64_t num;        // unique ids
  int64_t* id;        // [K]
  float* bias;       // [K padded], nats, -inf where no column is
  int32_t* row_of;    // [K padded], place in the index, or null
  int32_t* count;     // [K]
  int32_t* column_of; // [K] column of each slot, or null
  SortItem* by_key;   // [K] (key, column) in order of key, or null
};

class TilePass : Rows {
 public:
  TilePass(const SampledSoftmax& a, const Tile& tile, int threads) : Rows(a, tile) {
    all_columns_ = round_up(a.K, tile.panel);
    const int64_t column_bytes = 2 * padded_ * 4;
    window_ = a.mode == SampledSoftmax::Mode::backward
                  ? std::max<int64_t>(kChunk, kWindowBytes / column_bytes / kChunk * kChunk)
                  : all_columns_;
    if (a.mode == SampledSoftmax::Mode::forward)
      window_ = std::max<int64_t>(kChunk, 2 * kWindowBytes / column_bytes / kChunk * kChunk);
    window_ = std::min(window_, all_columns_);
    wants_items_ = a.d_item_nD != nullptr;
    wants_columns_ = wants_items_ || a.d_bias_n != nullptr;
    wants_query_ = a.d_query_BD != nullptr || a.d_scale != nullptr;
    gradients_ = a.mode != SampledSoftmax::Mode::forward;

    // bfloat16 rows of both sides: products of pairs; exponentials are rounded for the gradients of
    // rows. Those of biases and of the scale are sums that cancel: for them e stays in fp32.
    const bool both_half = a.query_BD.dtype == Dtype::bf16 && a.item_VD.dtype == Dtype::bf16;
    half_ = both_half ? tile.half : nullptr;
    rounds_ = half_ != nullptr && a.d_bias_n == nullptr && a.d_scale == nullptr;
    const int64_t unit = kTileRows * threads;
    const int64_t budget = kBlockBytes * std::max(threads, 2) / 2;
    const int64_t size = rounds_ ? 2 : 4;
    int64_t rows = budget / (size * std::max<int64_t>(window_, 1)) / kTileRows * kTileRows;
    rows = std::clamp<int64_t>(rows, kTileRows, std::max<int64_t>(96, 48 * threads));
    const int64_t most = std::min(a.group_size, a.B);
    const int64_t blocks = (most + rows - 1) / rows;  // B = 0 does not come here
    block_rows_ = round_up((most + blocks - 1) / blocks, std::min(rows, unit));
    chunks_ = (window_ + kChunk - 1) / kChunk;

    together_ = std::min<int64_t>(threads, a.G);
    for (int i = 0; i < together_; ++i) {
      Group group{};
      group.id = memory_.make<int64_t>(a.K);
      group.bias = memory_.make<float>(all_columns_);
      group.count = memory_.make<int32_t>(a.K);
      group.row_of = wants_columns_ ? memory_.make<int32_t>(all_columns_) : nullptr;
      group.column_of = a.exclude_own_slot ? memory_.make<int32_t>(a.K) : nullptr;
      group.by_key = a.key_V != nullptr && a.drop_hits ? memory_.make<SortItem>(a.K) : nullptr;
      groups_.push_back(group);
    }
    for (int i = 0; i < threads; ++i) {
      scratch_.push_back(memory_.make<float>(
          std::max<int64_t>({block_rows_ * padded_, tile.panel * padded_,
                             kTileRows * int64_t{kChunkStride}})));
    }
    const int64_t exps = chunks_ * block_rows_ * kChunkStride;
    if (half_ != nullptr) {
      half_panels_ = memory_.make<uint32_t>(window_ * round_up(a.D, 2) / 2);
      half_query_ = memory_.make<uint16_t>(block_rows_ * padded_);
      for (int i = 0; i < threads; ++i) {
        half_scratch_.push_back(memory_.make<uint16_t>(
            std::max<int64_t>(tile.panel * padded_, kTileRows * int64_t{kChunkStride})));
        half_pairs_.push_back(memory_.make<uint32_t>((block_rows_ + 1) / 2 * padded_));
      }
    } else {
      panels_ = memory_.make<float>(window_ * a.D);
    }
    if (gradients_ && rounds_) {
      half_items_ = memory_.make<uint32_t>(window_ * padded_ / 2);
      half_exps_ = memory_.make<uint32_t>(exps / 2);
    } else if (gradients_) {
      items_ = memory_.make<float>(window_ * padded_);
      exps_ = memory_.make<float>(exps);
    }
    if (gradients_) {
      reference_ = memory_.make<float>(chunks_ * block_rows_);
      d_query_ = memory_.make<float>(block_rows_ * padded_);
      up_ = memory_.make<Upstream>(block_rows_);
      d_pos_ = memory_.make<float>(a.B);
    }
    // Groups are sorted while no exponentials are kept: the same memory.
    auto* room = rounds_ ? reinterpret_cast<SortItem*>(half_exps_)
                         : reinterpret_cast<SortItem*>(exps_);
    const int64_t fits = room == nullptr ? 0 : exps * size / 16;
    if (fits < 2 * a.K * together_) room = memory_.make<SortItem>(2 * a.K * together_);
    for (int i = 0; i < together_; ++i) sorts_.push_back(room + 2 * a.K * i);
    query_ = memory_.make<float>(block_rows_ * padded_);
    lse_ = memory_.make<OnlineLse>(a.B);
    for (int64_t b = 0; b < a.B; ++b) lse_[b] = OnlineLse{};
    if (a.d_scale != nullptr) {
      d_scale_ = memory_.make<double>(a.B);
      std::fill(d_scale_, d_scale_ + a.B, 0.0);
    }
    if (a.index != nullptr) pos_place_ = memory_.make<int32_t>(a.B);
  }

  void run(int me, int team) {
    clear(me, team);
    for (int64_t first = 0; first < a_.G; first += together_) {
      const int64_t last = std::min(first + together_, a_.G);
      meet_.wait(team);
      for (int64_t g = first + me; g < last; g += team) prepare(groups_[g - first], sorts_[me], g);
      meet_.wait(team);
      for (int64_t g = first; g < last; ++g) {
        const int64_t start = g * a_.group_size;
        run_group(groups_[g - first], start, std::min(start + a_.group_size, a_.B), me, team);
      }
    }
    if (gradients_) add_positives(me, team);
  }

  void finish() {
    if (a_.d_scale == nullptr) return;
    double sum = 0;
    for (int64_t b = 0; b < a_.B; ++b) sum += d_scale_[b];
    *a_.d_scale = sum;
  }

 private:
  void clear(int me, int team) {
    if (a_.index == nullptr) return;
    const Range r = part(a_.index->size(), 1, me, team);
    if (a_.d_item_nD != nullptr)
      std::fill(a_.d_item_nD + r.first * a_.D, a_.d_item_nD + r.last * a_.D, 0.0f);
    if (a_.d_bias_n != nullptr) std::fill(a_.d_bias_n + r.first, a_.d_bias_n + r.last, 0.0);
    const Range rows = part(a_.B, 1, me, team);
    for (int64_t b = rows.first; b < rows.last; ++b)
      pos_place_[b] = a_.index->place(a_.pos_id_B[b]);
  }

  // The group's ids sorted and counted, their biases and places.
  void prepare(Group& group, SortItem* items, int64_t g) const {
    const int64_t* ids = negatives_of(g, group.id);
    for (int64_t k = 0; k < a_.K; ++k)
      items[k] = {static_cast<uint64_t>(ids[k]), static_cast<uint32_t>(k)};
    const SortItem* sorted = radix_sort(items, items + a_.K, a_.K, a_.V);
    int64_t num = 0;
    for (int64_t k = 0; k < a_.K; ++k) {
      const auto id = static_cast<int64_t>(sorted[k].key);
      if (num == 0 || group.id[num - 1] != id) {
        group.id[num] = id;
        group.count[num++] = 0;
      }
      ++group.count[num - 1];
      if (group.column_of != nullptr)
        group.column_of[sorted[k].slot] = static_cast<int32_t>(num - 1);
    }
    group.num = num;
    const int64_t columns = round_up(num, tile_.panel);
    for (int64_t k = 0; k < num; ++k) {
      double bias = negative_bias(group.id[k]);
      if (group.count[k] > 1) bias += std::log(static_cast<double>(group.count[k]));
      group.bias[k] = static_cast<float>(bias);
      if (group.row_of != nullptr) group.row_of[k] = a_.index->place(group.id[k]);
    }
    for (int64_t k = num; k < columns; ++k) group.bias[k] = -kInf;
    if (group.by_key == nullptr) return;
    for (int64_t k = 0; k < num; ++k)
      group.by_key[k] = {static_cast<uint64_t>(a_.key_V[group.id[k]]), static_cast<uint32_t>(k)};
    std::sort(group.by_key, group.by_key + num, before);
  }

  static bool before(const SortItem& one, const SortItem& other) {
    return one.key != other.key ? one.key < other.key : one.slot < other.slot;
  }

  void run_group(const Group& group, int64_t start, int64_t stop, int me, int team) {
    const int64_t columns = round_up(group.num, tile_.panel);
    const int64_t num_rows = stop - start;
    const int64_t blocks = (num_rows + block_rows_ - 1) / block_rows_;
    for (int64_t left = 0; left < columns; left += window_) {
      const Window w{left, std::min(left + window_, columns), left == 0, left + window_ >= columns};
      pack(group, w, me, team);
      meet_.wait(team);
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t first = start + i * block_rows_;
        const int64_t last = std::min(first + block_rows_, stop);
        sweep_rows(group, w, first, last, me, team);
        meet_.wait(team);
        if (gradients_ && wants_columns_) {
          sweep_columns(group, w, last - first, me, team);
          meet_.wait(team);
        }
      }
      meet_.wait(team);
    }
  }

  struct Window {
    int64_t first, last;  // columns
    bool is_first, is_last;
  };

  // The same for bfloat16, as pairs.
  void pack_half(const Group& group, const Window& w, int me, int team) {
    const Range mine = part(w.last - w.first, tile_.panel, me, team);
    uint16_t* rows = half_scratch_[me];
    const int64_t depth = round_up(a_.D, 2);
    for (int64_t k = mine.first; k < mine.last; k += tile_.panel) {
      for (int64_t j = 0; j < tile_.panel; ++j) {
        const int64_t column = w.first + k + j;
        if (column + 16 < group.num) prefetch(group.id[column + 16]);
        if (column < group.num) {
          half_->fetch(a_.item_VD, group.id[column], a_.D, padded_, rows + j * padded_);
        } else {
          std::fill(rows + j * padded_, rows + (j + 1) * padded_, uint16_t{0});
        }
        if (!gradients_ || rounds_) continue;
        float* wide = items_ + (k + j) * padded_;
        if (column < group.num) {
          tile_.fetch(a_.item_VD, group.id[column], a_.D, padded_, wide);
        } else {
          std::fill(wide, wide + padded_, 0.0f);
        }
      }
      half_->pack(rows, padded_, depth, half_panels_ + k * depth / 2);
      if (gradients_ && rounds_)
        half_->pair_rows(rows, padded_, tile_.panel, padded_, half_items_ + k * padded_ / 2);
    }
  }

  void pack(const Group& group, const Window& w, int me, int team) {
    if (half_ != nullptr) return pack_half(group, w, me, team);
    constexpr int64_t kAhead = 16;
    const Range mine = part(w.last - w.first, tile_.panel, me, team);
    float* own = scratch_[me];
    for (int64_t k = mine.first; k < mine.last; k += tile_.panel) {
      for (int64_t j = k; j < k + tile_.panel; ++j) {
        const int64_t column = w.first + j;
        float* row = gradients_ ? items_ + j * padded_ : own + (j - k) * padded_;
        if (column + kAhead < group.num) prefetch(group.id[column + kAhead]);
        if (column < group.num) {
          tile_.fetch(a_.item_VD, group.id[column], a_.D, padded_, row);
        } else {
          std::fill(row, row + padded_, 0.0f);
        }
      }
      tile_.pack(gradients_ ? items_ + k * padded_ : own, padded_, a_.D, panels_ + k * a_.D);
    }
  }

  void prefetch(int64_t id) const {
    const int64_t size = a_.item_VD.dtype == Dtype::f32 ? 4 : 2;
    const char* row = static_cast<const char*>(a_.item_VD.data) + id * a_.item_VD.row_stride * size;
    for (int64_t byte = 0; byte < a_.D * size; byte += 64) __builtin_prefetch(row + byte);
  }

  // Steps 1 and 2 for this thread's rows of the block [first, last).
  void sweep_rows(const Group& group, const Window& w, int64_t first, int64_t last, int me,
                  int team) {
    const Range mine = part(last - first, kTileRows, me, team);
    if (mine.first == mine.last) return;
    const int64_t end = round_up(mine.last, kTileRows);
    for (int64_t r = mine.first; r < end; ++r) {
      float* q = query_ + r * padded_;
      if (r < mine.last) {
        tile_.fetch(a_.query_BD, first + r, a_.D, padded_, q);
      } else {
        std::fill(q, q + padded_, 0.0f);
      }
      if (half_ != nullptr) {
        uint16_t* half = half_query_ + r * padded_;
        std::fill(half, half + padded_, uint16_t{0});
        if (r < mine.last) half_->fetch(a_.query_BD, first + r, a_.D, padded_, half);
      }
      if (gradients_) {
        std::fill(d_query_ + r * padded_, d_query_ + (r + 1) * padded_, 0.0f);
        up_[r] = Upstream{};
        if (a_.mode == SampledSoftmax::Mode::backward && r < mine.last)
          up_[r] = upstream(first + r, a_.lse_B[first + r]);
      }
    }
    for (int64_t left = w.first; left < w.last; left += kChunk) {
      const int64_t columns = std::min<int64_t>(kChunk, w.last - left);
      for (int64_t r = mine.first; r < end; r += kTileRows)
        one_strip(group, w, first, last, r, left, columns, me);
    }
    for (int64_t r = mine.first; r < mine.last; ++r) finish_row(w, first, r, me);
  }

  // Six rows r.. of the block against one chunk of columns.
  void one_strip(const Group& group, const Window& w, int64_t first, int64_t last, int64_t r,
                 int64_t left, int64_t columns, int me) {
    const int64_t at = left - w.first, chunk = at / kChunk;
    const bool keeps = gradients_ && !rounds_;
    float* e = keeps ? exps_ + (chunk * block_rows_ + r) * kChunkStride : scratch_[me];
    float* reference = gradients_ ? reference_ + chunk * block_rows_ + r : nullptr;
    float largest[kTileRows], keep[kTileRows];
    if (half_ != nullptr) {
      const int64_t depth = round_up(a_.D, 2);
      half_->logits(half_query_ + r * padded_, padded_, depth, half_panels_ + at * depth / 2,
                    columns / tile_.panel, scale_, group.bias + left, e, kChunkStride, largest);
    } else {
      tile_.logits(query_ + r * padded_, padded_, a_.D, panels_ + at * a_.D, columns / tile_.panel,
                   scale_, group.bias + left, e, kChunkStride, largest);
    }
    for (int i = 0; i < kTileRows; ++i) {
      const int64_t b = first + r + i;
      float* row = e + i * kChunkStride;
      const bool is_row = b < last;
      if (is_row && correct(group, b, left, columns, row)) {
        largest[i] = -kInf;
        for (int64_t k = 0; k < columns; ++k) largest[i] = std::max(largest[i], row[k]);
      }
      keep[i] = 1;
      if (a_.mode == SampledSoftmax::Mode::backward) {
        const bool live = is_row && up_[r + i].live;
        if (live) {
          // A whole number: the rest of the log-sum-exp stays a double until it is a factor.
          reference[i] = static_cast<float>(std::rint(up_[r + i].lse));
          tile_.exp_row(row, columns, reference[i]);
        } else {
          std::fill(row, row + columns, 0.0f);
        }
      } else if (is_row) {
        OnlineLse& lse = lse_[b];
        keep[i] = lse.scale_to(std::max(lse.largest, largest[i]));
        lse.sum += tile_.exp_row(row, columns, lse.raise(largest[i]));
        if (gradients_) reference[i] = lse.largest;
      } else if (gradients_) {
        std::fill(row, row + columns, 0.0f);
        reference[i] = -kInf;
      }
    }
    if (rounds_ && gradients_) {
      uint16_t* rows = wants_query_ ? half_scratch_[me] : nullptr;
      half_->round_strip(e, kChunkStride, columns, rows,
                         wants_items_ ? half_exps_ + (chunk * block_rows_ + r) / 2 * kChunkStride
                                      : nullptr);
      if (wants_query_)
        half_->add_rows(rows, kChunkStride, columns, half_items_ + at * padded_ / 2, padded_, keep,
                        d_query_ + r * padded_);
    } else if (gradients_ && wants_query_)
      tile_.add_rows(e, kChunkStride, columns, items_ + at * padded_, padded_, keep,
                     d_query_ + r * padded_);
  }

  // Takes out of row b's logits what is not its negative; true when one changed.
  bool correct(const Group& group, int64_t b, int64_t left, int64_t columns, float* row) const {
    bool changed = false;
    if (a_.exclude_own_slot) {
      const int64_t column = group.column_of[b], at = column - left;
      if (at >= 0 && at < columns) {
        const double count = group.count[column];
        row[at] += static_cast<float>(std::log((count - 1) / count));
        changed = true;
      }
    }
    if (group.by_key != nullptr) {
      const auto key = static_cast<uint64_t>(a_.key_V[a_.pos_id_B[b]]);
      const SortItem wanted{key, static_cast<uint32_t>(left)};
      const SortItem* stop = group.by_key + group.num;
      const SortItem* at = std::lower_bound<const SortItem*>(group.by_key, stop, wanted, before);
      for (; at != stop && at->key == key && at->slot < left + columns; ++at) {
        row[at->slot - left] = -kInf;
        changed = true;
      }
    } else if (a_.drop_hits) {
      const int64_t* stop = group.id + std::min(group.num, left + columns);
      const int64_t* found = std::lower_bound<const int64_t*>(group.id + left, stop, a_.pos_id_B[b]);
      if (found != stop && *found == a_.pos_id_B[b]) {
        row[found - group.id - left] = -kInf;
        changed = true;
      }
    }
    return changed;
  }

  // Row r of the block after the window's last chunk: lse, the positive, the gradient of the query.
  void finish_row(const Window& w, int64_t first, int64_t r, int me) {
    const int64_t b = first + r;
    const bool backward = a_.mode == SampledSoftmax::Mode::backward;
    if (!backward && !w.is_last) return;
    const bool with_positive = backward ? w.is_first : true;
    float* pos_item = scratch_[me];
    float pos_dot = 0;
    if (with_positive) {
      tile_.fetch(a_.item_VD, a_.pos_id_B[b], a_.D, padded_, pos_item);
      pos_dot = tile_.dot(query_ + r * padded_, pos_item, padded_);
    }
    if (!backward) {
      const double lse = finish_forward(b, pos_dot, lse_[b].log());
      if (!gradients_) return;
      up_[r] = upstream(b, lse);
    }
    Upstream& up = up_[r];
    d_pos_[b] = up.d_pos;
    for (int64_t chunk = 0; chunk < chunks_of(w); ++chunk) {
      float& reference = reference_[chunk * block_rows_ + r];
      if (!up.live) {
        clear_exps(chunk, r);
        reference = 0;
      } else {
        reference = static_cast<float>(std::exp(reference - up.lse));
      }
    }
    if (!wants_query_) return;
    float* d = d_query_ + r * padded_;
    if (!up.live) {
      std::fill(d, d + padded_, 0.0f);
    } else {
      const double last = backward ? std::rint(up.lse) : lse_[b].largest;
      const float factor = static_cast<float>(up.d_lse * std::exp(last - up.lse));
      if (d_scale_ != nullptr) {
        const double negatives = double(tile_.dot(query_ + r * padded_, d, padded_)) * factor;
        const double positive = with_positive ? double(pos_dot) * up.d_pos : 0.0;
        d_scale_[b] += negatives + positive;
      }
      const float scaled = static_cast<float>(factor * a_.scale);
      for (int64_t j = 0; j < a_.D; ++j) d[j] *= scaled;
      if (with_positive) tile_.axpy(static_cast<float>(a_.scale * up.d_pos), pos_item, a_.D, d);
    }
    if (a_.d_query_BD == nullptr) return;
    float* out = a_.d_query_BD + b * a_.D;
    if (with_positive) {
      std::copy(d, d + a_.D, out);
    } else {
      for (int64_t j = 0; j < a_.D; ++j) out[j] += d[j];
    }
  }

  // A row that gives no gradient may have kept what is no number.
  void clear_exps(int64_t chunk, int64_t r) {
    if (!rounds_) {
      float* row = exps_ + (chunk * block_rows_ + r) * kChunkStride;
      std::fill(row, row + kChunk, 0.0f);
    } else if (wants_items_) {
      const uint32_t kept = r % 2 == 0 ? 0xffff0000u : 0x0000ffffu;
      uint32_t* pairs = half_exps_ + (chunk * block_rows_ + r) / 2 * kChunkStride;
      for (int64_t k = 0; k < kChunk; ++k) pairs[k] &= kept;
    }
  }

  static int64_t chunks_of(const Window& w) { return (w.last - w.first + kChunk - 1) / kChunk; }

  // Step 3 for this thread's columns.
  void sweep_columns(const Group& group, const Window& w, int64_t num_rows, int me, int team) {
    const int64_t stop = std::min(w.last, group.num);
    if (stop <= w.first) return;
    const Range mine = part(stop - w.first, kTileRows, me, team);
    float* fq = scratch_[me];
    for (int64_t chunk = mine.first / kChunk; chunk * kChunk < mine.last; ++chunk) {
      const int64_t from = std::max<int64_t>(mine.first - chunk * kChunk, 0);
      const int64_t to = std::min<int64_t>(mine.last - chunk * kChunk, kChunk);
      const float* factor = reference_ + chunk * block_rows_;
      const int32_t* row_of = group.row_of + w.first + chunk * kChunk;
      if (rounds_) {
        sweep_half(chunk, factor, num_rows, from, to, row_of, me);
        continue;
      }
      const float* e = exps_ + chunk * block_rows_ * kChunkStride;
      if (a_.d_bias_n != nullptr) {
        for (int64_t r = 0; r < num_rows; ++r) fq[r] = up_[r].d_lse * factor[r];
        tile_.add_column_sums(e, kChunkStride, num_rows, from, to, fq, row_of, a_.d_bias_n);
      }
      if (!wants_items_) continue;
      for (int64_t r = 0; r < num_rows; ++r) {
        const float f = static_cast<float>(a_.scale) * up_[r].d_lse * factor[r];
        const float* q = query_ + r * padded_;
        for (int64_t d = 0; d < padded_; ++d) fq[r * padded_ + d] = f * q[d];
      }
      tile_.add_columns(e, kChunkStride, num_rows, from, to, fq, padded_, a_.D, row_of,
                        a_.d_item_nD, a_.D);
    }
  }

  void sweep_half(int64_t chunk, const float* factor, int64_t num_rows, int64_t from, int64_t to,
                  const int32_t* row_of, int me) {
    uint32_t* fq = half_pairs_[me];
    const auto f = [&](int64_t r) {
      return r < num_rows ? static_cast<float>(a_.scale) * up_[r].d_lse * factor[r] : 0.0f;
    };
    // A block is whole strips, so the row after an odd last one is there, and zero.
    for (int64_t r = 0; r < num_rows; r += 2)
      half_->round_pair(query_ + r * padded_, query_ + (r + 1) * padded_, f(r), f(r + 1), padded_,
                        fq + r / 2 * padded_);
    half_->add_columns(half_exps_ + chunk * block_rows_ / 2 * kChunkStride, kChunkStride,
                       (num_rows + 1) / 2, from, to, fq, padded_, a_.D, row_of, a_.d_item_nD, a_.D);
  }

  // The positives' share of the table's gradient, each table row by one thread, rows in order.
  void add_positives(int me, int team) {
    if (!wants_columns_) return;
    meet_.wait(team);
    const Range mine = part(a_.index->size(), 1, me, team);
    float* q = scratch_[me];
    for (int64_t b = 0; b < a_.B; ++b) {
      const int64_t n = pos_place_[b];
      if (n < mine.first || n >= mine.last || d_pos_[b] == 0) continue;
      if (a_.d_bias_n != nullptr) a_.d_bias_n[n] += d_pos_[b];
      if (!wants_items_) continue;
      tile_.fetch(a_.query_BD, b, a_.D, padded_, q);
      tile_.axpy(static_cast<float>(a_.scale * d_pos_[b]), q, a_.D, a_.d_item_nD + n * a_.D);
    }
  }

  Workspace memory_;
  Barrier meet_;
  int64_t together_;  // groups prepared at a time
  int64_t all_columns_, window_, block_rows_, chunks_;
  bool wants_items_, wants_columns_, wants_query_, gradients_;
  std::vector<Group> groups_;
  std::vector<SortItem*> sorts_;
  std::vector<float*> scratch_;
  float* panels_ = nullptr;   // [window / panel][D][panel]
  float* items_ = nullptr;    // [window, padded]
  float* exps_ = nullptr;     // [chunk][block row][kChunkStride]
  // [chunk][block row]: what e is measured from; once lse is known, the factor from e to p.
  float* reference_ = nullptr;
  float* query_ = nullptr;    // [block row, padded]
  float* d_query_ = nullptr;  // [block row, padded]
  Upstream* up_ = nullptr;    // [block row]
  OnlineLse* lse_ = nullptr;  // [B]
  float* d_pos_ = nullptr;    // [B]
  double* d_scale_ = nullptr; // [B]
  int32_t* pos_place_ = nullptr;

  const HalfTile* half_;             // null where logits are not products of pairs
  bool rounds_;                      // whether those of gradients are, too
  uint32_t* half_panels_ = nullptr;  // [window / panel][D / 2][panel]
  uint32_t* half_items_ = nullptr;   // [window / 2, padded]
  uint32_t* half_exps_ = nullptr;    // [chunk][block row / 2][kChunkStride]
  uint16_t* half_query_ = nullptr;   // [block row, padded]
  std::vector<uint16_t*> half_scratch_;
  std::vector<uint32_t*> half_pairs_;
};

class GatherPass : Rows {
 public:
  GatherPass(const SampledSoftmax& a, const Tile& tile, int threads) : Rows(a, tile) {
    wants_items_ = a.d_item_nD != nullptr;
    wants_columns_ = wants_items_ || a.d_bias_n != nullptr;
    gradients_ = a.mode != SampledSoftmax::Mode::forward;
    block_rows_ = wants_columns_ ? std::clamp<int64_t>((int64_t{1} << 20) / a.K, threads, 4096)
                                 : std::max<int64_t>(a.B, 1);
    block_rows_ = std::min(block_rows_, std::max<int64_t>(a.B, 1));
    kept_rows_ = wants_columns_ ? block_rows_ : threads;
    prob_ = memory_.make<float>(kept_rows_ * a.K);
    if (wants_columns_) {
      place_ = memory_.make<int32_t>(block_rows_ * a.K);
      query_ = memory_.make<float>(block_rows_ * padded_);
      d_pos_ = memory_.make<float>(block_rows_);
    }
    for (int i = 0; i < threads; ++i) {
      scratch_.push_back(memory_.make<float>(4 * padded_));
      ids_.push_back(a.neg_id_GK == nullptr ? memory_.make<int64_t>(a.K) : nullptr);
    }
    if (a.d_scale != nullptr) d_scale_ = memory_.make<double>(a.B);
  }

  void run(int me, int team) {
    if (a_.index != nullptr) {
      const Range r = part(a_.index->size(), 1, me, team);
      if (a_.d_item_nD != nullptr)
        std::fill(a_.d_item_nD + r.first * a_.D, a_.d_item_nD + r.last * a_.D, 0.0f);
      if (a_.d_bias_n != nullptr) std::fill(a_.d_bias_n + r.first, a_.d_bias_n + r.last, 0.0);
    }
    for (int64_t first = 0; first < a_.B; first += block_rows_) {
      const int64_t num = std::min(block_rows_, a_.B - first);
      const Range mine = part(num, 1, me, team);
      for (int64_t r = mine.first; r < mine.last; ++r)
        one_row(first, r, wants_columns_ ? r : me, me);
      if (!wants_columns_) continue;
      meet_.wait(team);
      for (int64_t r = 0; r < num; ++r) add_row_to_items(first, r, me, team);
      meet_.wait(team);
    }
  }

  void finish() {
    if (a_.d_scale == nullptr) return;
    double sum = 0;
    for (int64_t b = 0; b < a_.B; ++b) sum += d_scale_[b];
    *a_.d_scale = sum;
  }

 private:
  void one_row(int64_t first, int64_t r, int64_t kept, int me) {
    const int64_t b = first + r;
    const int64_t* ids = negatives_of(b / a_.group_size, ids_[me]);
    float* z = prob_ + kept * a_.K;
    float* scratch = scratch_[me];
    float* q = scratch + padded_;
    float* pos_item = q + padded_;
    float* d = pos_item + padded_;
    tile_.fetch(a_.query_BD, b, a_.D, padded_, q);
    if (query_ != nullptr) std::copy(q, q + padded_, query_ + r * padded_);
    tile_.gather_dots(a_.item_VD, ids, a_.K, q, a_.D, scratch, z);
    const int64_t pos_id = a_.pos_id_B[b];
    const auto key_of = [&](int64_t id) { return a_.key_V == nullptr ? id : a_.key_V[id]; };
    const bool biased = a_.log_proposal_V != nullptr || a_.log_prior_V != nullptr;
    float largest = -kInf;
    for (int64_t k = 0; k < a_.K; ++k) {
      z[k] *= scale_;
      if (biased) z[k] += static_cast<float>(negative_bias(ids[k]));
      const bool is_hit = a_.drop_hits && key_of(ids[k]) == key_of(pos_id);
      if (is_hit || (a_.exclude_own_slot && k == b)) z[k] = -kInf;
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
    if (d_pos_ != nullptr) {
      d_pos_[r] = up.d_pos;
      for (int64_t k = 0; k < a_.K; ++k) place_[r * a_.K + k] = a_.index->place(ids[k]);
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
    if (d_scale_ != nullptr)
      d_scale_[b] = up.live ? double(tile_.dot(q, d, padded_)) : 0.0;
    if (a_.d_query_BD == nullptr) return;
    for (int64_t j = 0; j < a_.D; ++j)
      a_.d_query_BD[b * a_.D + j] = static_cast<float>(a_.scale) * d[j];
  }

  // The thread that owns row n of the gradient: popular ids, often neighbours, are spread.
  static int owner(int32_t n, int team) {
    const uint64_t mixed = static_cast<uint32_t>(n) * uint32_t{2654435761u};
    return static_cast<int>((mixed * static_cast<uint64_t>(team)) >> 32);
  }

  // Row r's share of the table rows that this thread owns.
  void add_row_to_items(int64_t first, int64_t r, int me, int team) {
    const float* q = query_ + r * padded_;
    const auto add = [&](int32_t n, float d) {
      if (d == 0 || owner(n, team) != me) return;
      if (a_.d_bias_n != nullptr) a_.d_bias_n[n] += d;
      if (wants_items_)
        tile_.axpy(static_cast<float>(a_.scale) * d, q, a_.D, a_.d_item_nD + n * a_.D);
    };
    const float* p = prob_ + r * a_.K;
    const int32_t* place = place_ + r * a_.K;
    for (int64_t k = 0; k < a_.K; ++k) add(place[k], p[k]);
    add(a_.index->place(a_.pos_id_B[first + r]), d_pos_[r]);
  }

  Workspace memory_;
  Barrier meet_;
  int64_t block_rows_, kept_rows_;
  bool wants_items_, wants_columns_, gradients_;
  float* prob_ = nullptr;     // [kept row, K] logits, then d_lse * probability
  int32_t* place_ = nullptr;  // [block row, K]
  float* query_ = nullptr;    // [block row, padded]
  float* d_pos_ = nullptr;    // [block row]
  double* d_scale_ = nullptr; // [B]
  std::vector<float*> scratch_;
  std::vector<int64_t*> ids_;  // [K] drawn
};

bool few_rows(int64_t num_rows, int64_t group_size) {
  return std::min(num_rows, group_size) < kFewRows;
}

template <typename Pass>
void run_team(const SampledSoftmax& args, const Tile& tile) {
  Pass pass(args, tile, args.threads);
#pragma omp parallel num_threads(args.threads)
  pass.run(omp_get_thread_num(), omp_get_num_threads());
  pass.finish();
}

}  // namespace

bool sampled_softmax_can_fuse(int64_t num_rows, int64_t group_size, int64_t K, int64_t D) {
  if (few_rows(num_rows, group_size)) return true;
  const int64_t padded = round_up(D, 16);
  return K * padded * 8 <= kFusedBytes && K * 4 * kTileRows <= kFusedBytes;
}

void sampled_softmax_cpu(const SampledSoftmax& args, const Tile& tile) {
  if (args.B == 0) return;
  if (few_rows(args.B, args.group_size)) {
    run_team<GatherPass>(args, tile);
  } else {
    run_team<TilePass>(args, tile);
  }
}

}  // namespace fastpop
