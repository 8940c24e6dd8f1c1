// Rows that share negatives, through register tiles.
//
// The team of threads takes a group's negatives, sorted, each id once with log(its count) in its bias,
// packs them, and goes through the rows in blocks:
//   1. each thread its rows, chunk by chunk: logits in a register tile, exponentials in L1 against
//      the largest logit so far, d_query += e . items at once; e stays in a buffer of the block;
//   2. each row's log-sum-exp; only now is p = e * exp(chunk's reference - lse) known;
//   3. each thread its columns: d_items += e^T . (f q), q scaled by the row's weight and by that
//      factor, so that e itself is never touched again.
// A thread owns rows in 1 and 2, columns (table rows) in 3: no atomics, no copies per thread, and
// sums in a fixed order. Cost: 2 B K D FLOPs forward, 6 fused, 6 backward alone (it makes the logits
// again); memory: packed items (K D numbers, a window of them when K is large; twice that where the
// table's rows are no whole vectors of fp32, which are read where they lie) and a block of exponentials
// (some 1.3 MiB at two threads).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "barrier.h"
#include "fetch_rows.h"
#include "online_lse.h"
#include "prefetch.h"
#include "ranges.h"
#include "sampled_softmax/negatives.h"
#include "strip_rows.h"
#include "workspace.h"

namespace fastpop {

// Bytes of exponentials kept by one block of rows, by which it is cut; with more threads, more. The
// larger number where a block would have fewer than kBlockRows otherwise: short ones cost time.
constexpr int64_t kBlockBytes = int64_t{1} << 20;
constexpr int64_t kMostBlockBytes = int64_t{5} << 19;
constexpr int64_t kBlockRows = 36;
// Bytes of packed items alive at once when exponentials are not kept.
constexpr int64_t kWindowBytes = int64_t{8} << 20;

class TilePass : SharedNegatives {
 public:
  TilePass(const SampledSoftmax& a, const Tile& tile, int threads) : SharedNegatives(a, tile) {
    gradients_ = a.mode != SampledSoftmax::Mode::forward;
    // bfloat16 rows of both sides: products of pairs, the same in every mode: lse and the logits made
    // again must have the same bits, or p - 1 of a sure row is the difference of their roundings.
    // Exponentials are rounded for the gradients of rows. Those of biases and of the scale are sums that
    // cancel: for them e stays in fp32.
    const bool both_half = a.query_BD.dtype == Dtype::bf16 && a.item_VD.dtype == Dtype::bf16;
    if (both_half) half_ = tile.wide_half != nullptr ? tile.wide_half : tile.half;
    rounds_ = half_ != nullptr && a.d_bias_n == nullptr && a.d_scale == nullptr;
    strip_ = half_ != nullptr ? half_->rows : kTileRows;
    row_unit_ = rounds_ ? half_->row_unit : strip_;
    if (half_ != nullptr) {
      padded_ = round_up(padded_, half_->depth_unit);
      depth_ = round_up(a.D, half_->depth_unit);
    }

    in_place_ = half_ == nullptr && a.item_VD.dtype == Dtype::f32 && a.item_VD.col_stride == 1 &&
                a.D == padded_;
    all_columns_ = round_up(a.K, tile.panel);
    const int64_t column_bytes = (gradients_ && !in_place_ ? 2 : 1) * padded_ * 4;
    window_ = all_columns_;
    if (a.mode != SampledSoftmax::Mode::fused)
      window_ = std::min(window_, std::max<int64_t>(kChunk, kWindowBytes / column_bytes / kChunk * kChunk));
    wants_items_ = a.d_item_nD != nullptr;
    wants_columns_ = wants_items_ || a.d_bias_n != nullptr;
    wants_query_ = a.d_query_BD != nullptr || a.d_scale != nullptr;

    const int64_t unit = round_up(strip_ * threads, row_unit_);
    const int64_t size = rounds_ ? 2 : 4;
    const int64_t budget = std::clamp(kBlockRows * size * window_, kBlockBytes, kMostBlockBytes) *
                           std::max(threads, 2) / 2;
    int64_t rows = budget / (size * std::max<int64_t>(window_, 1)) / row_unit_ * row_unit_;
    // Without gradients nothing is kept.
    if (!gradients_) rows = std::numeric_limits<int64_t>::max();
    const int64_t most_rows = std::max<int64_t>(96, 48 * threads) / row_unit_ * row_unit_;
    rows = std::clamp<int64_t>(rows, row_unit_, most_rows);
    const int64_t most = std::min(a.group_size, a.B);
    const int64_t blocks = (most + rows - 1) / rows;  // B = 0 does not come here
    block_rows_ = round_up((most + blocks - 1) / blocks, std::min(rows, unit));
    chunks_ = (window_ + kChunk - 1) / kChunk;

    together_ = std::min<int64_t>(threads, a.G);
    for (int i = 0; i < together_; ++i) groups_.push_back(make_group(memory_, wants_columns_));
    for (int i = 0; i < threads; ++i) {
      scratch_.push_back(memory_.make<float>(
          std::max<int64_t>({block_rows_ * padded_, tile.panel * padded_,
                             strip_ * int64_t{kChunkStride}})));
      const bool needs_room = gradients_ && !rounds_ && strip_ % kTileRows != 0;
      room_.push_back(needs_room ? memory_.make<float>(strip_room(padded_)) : nullptr);
    }
    const int64_t exps = chunks_ * block_rows_ * kChunkStride;
    if (half_ != nullptr) {
      half_panels_ = memory_.make<uint32_t>(window_ * depth_ / 2);
      half_query_ = memory_.make<uint16_t>(block_rows_ * padded_);
      for (int i = 0; i < threads; ++i) {
        half_scratch_.push_back(memory_.make<uint16_t>(
            std::max<int64_t>(tile.panel * padded_, strip_ * int64_t{kChunkStride})));
        half_pairs_.push_back(memory_.make<uint32_t>(block_rows_ / 2 * padded_));
      }
    } else {
      panels_ = memory_.make<float>(window_ * a.D);
    }
    if (gradients_ && rounds_) {
      half_items_ = memory_.make<uint32_t>(window_ * padded_ / 2);
      half_exps_ = memory_.make<uint32_t>(exps / 2);
    } else if (gradients_) {
      if (!in_place_) items_ = memory_.make<float>(window_ * padded_);
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
    if (half_ != nullptr) half_->enter();
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
    if (half_ != nullptr) half_->leave();
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

  void run_group(const Group& group, int64_t start, int64_t stop, int me, int team) {
    const int64_t columns = columns_of(group);
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
    for (int64_t k = mine.first; k < mine.last; k += tile_.panel) {
      for (int64_t j = 0; j < tile_.panel; ++j) {
        const int64_t column = w.first + k + j;
        if (column + 16 < group.num) prefetch_row(a_.item_VD, group.id[column + 16], a_.D);
        const int64_t id = column < group.num ? group.id[column] : -1;
        fetch_or_clear(*half_, a_.item_VD, id, a_.D, padded_, rows + j * padded_);
        if (gradients_ && !rounds_)
          fetch_or_clear(tile_, a_.item_VD, id, a_.D, padded_, items_ + (k + j) * padded_);
      }
      half_->pack(rows, padded_, depth_, half_panels_ + k * depth_ / 2);
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
        float* row = items_ != nullptr ? items_ + j * padded_ : own + (j - k) * padded_;
        if (column + kAhead < group.num) prefetch_row(a_.item_VD, group.id[column + kAhead], a_.D);
        const int64_t id = column < group.num ? group.id[column] : -1;
        fetch_or_clear(tile_, a_.item_VD, id, a_.D, padded_, row);
      }
      tile_.pack(items_ != nullptr ? items_ + k * padded_ : own, padded_, a_.D, panels_ + k * a_.D);
    }
  }

  // Steps 1 and 2 for this thread's rows of the block [first, last).
  void sweep_rows(const Group& group, const Window& w, int64_t first, int64_t last, int me,
                  int team) {
    const Range mine = part(last - first, strip_, me, team);
    if (mine.first == mine.last) return;
    // Whoever has the last row leaves whole units to the sums over rows.
    const int64_t end = round_up(mine.last, mine.last == last - first ? row_unit_ : strip_);
    for (int64_t r = mine.first; r < end; ++r) {
      const int64_t b = r < mine.last ? first + r : -1;
      fetch_or_clear(tile_, a_.query_BD, b, a_.D, padded_, query_ + r * padded_);
      if (half_ != nullptr)
        fetch_or_clear(*half_, a_.query_BD, b, a_.D, padded_, half_query_ + r * padded_);
      if (gradients_) {
        std::fill(d_query_ + r * padded_, d_query_ + (r + 1) * padded_, 0.0f);
        up_[r] = Upstream{};
        if (a_.mode == SampledSoftmax::Mode::backward && r < mine.last)
          up_[r] = upstream(first + r, a_.lse_B[first + r]);
      }
    }
    for (int64_t left = w.first; left < w.last; left += kChunk) {
      const int64_t columns = std::min<int64_t>(kChunk, w.last - left);
      for (int64_t r = mine.first; r < end; r += strip_)
        one_strip(group, w, first, last, r, left, columns, me);
    }
    for (int64_t r = mine.first; r < mine.last; ++r) finish_row(w, first, r, me);
  }

  // A strip of rows r.. of the block against one chunk of columns.
  void one_strip(const Group& group, const Window& w, int64_t first, int64_t last, int64_t r,
                 int64_t left, int64_t columns, int me) {
    const int64_t at = left - w.first, chunk = at / kChunk;
    const bool keeps = gradients_ && !rounds_;
    float* e = keeps ? exps_ + (chunk * block_rows_ + r) * kChunkStride : scratch_[me];
    float* reference = gradients_ ? reference_ + chunk * block_rows_ + r : nullptr;
    float largest[kMostTileRows], keep[kMostTileRows];
    if (half_ != nullptr) {
      half_->logits(half_query_ + r * padded_, padded_, depth_, half_panels_ + at * depth_ / 2,
                    columns / tile_.panel, scale_, group.bias + left, e, kChunkStride, largest);
    } else {
      tile_.logits(query_ + r * padded_, padded_, a_.D, panels_ + at * a_.D, columns / tile_.panel,
                   scale_, group.bias + left, e, kChunkStride, largest);
    }
    for (int i = 0; i < strip_; ++i) {
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
    } else if (gradients_ && wants_query_ && in_place_) {
      const int64_t real = std::clamp<int64_t>(group.num - left, 0, columns);
      tile_.add_table_rows(e, kChunkStride, real, static_cast<const float*>(a_.item_VD.data),
                           a_.item_VD.row_stride, group.id + left, padded_, keep,
                           d_query_ + r * padded_);
    } else if (gradients_ && wants_query_) {
      add_strip_rows(tile_, strip_, e, columns, items_ + at * padded_, padded_, keep, room_[me],
                     d_query_ + r * padded_);
    }
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
    const Range mine = part(stop - w.first, strip_, me, team);
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
    float* f = scratch_[me];
    for (int64_t r = 0; r < num_rows; ++r) f[r] = scale_ * up_[r].d_lse * factor[r];
    uint32_t* fq = half_pairs_[me];
    half_->scale_rows(query_, padded_, f, num_rows, fq);
    half_->add_columns(half_exps_ + chunk * block_rows_ / 2 * kChunkStride, kChunkStride, num_rows,
                       from, to, fq, padded_, a_.D, row_of, a_.d_item_nD, a_.D);
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
  bool in_place_;  // items are rows of whole vectors of fp32: read where they lie
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

  const HalfTile* half_ = nullptr;   // null where logits are not products of pairs
  int64_t strip_, row_unit_;         // rows of a strip; of what sums over rows take, whole strips
  int64_t depth_ = 0;                // D in whole units of half_
  bool rounds_;                      // whether those of gradients are, too
  uint32_t* half_panels_ = nullptr;  // [window / panel][D / 2][panel]
  uint32_t* half_items_ = nullptr;   // [window / 2, padded]
  uint32_t* half_exps_ = nullptr;    // [chunk][block row / 2][kChunkStride]
  uint16_t* half_query_ = nullptr;   // [block row, padded]
  std::vector<uint16_t*> half_scratch_;
  std::vector<uint32_t*> half_pairs_;
  std::vector<float*> room_;  // for add_strip_rows
};

}  // namespace fastpop
