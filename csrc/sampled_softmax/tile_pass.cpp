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
#include "sampled_softmax/tile_pass.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "barrier.h"
#include "fetch_rows.h"
#include "mutant.h"
#include "online_lse.h"
#include "prefetch.h"
#include "products.h"
#include "ranges.h"
#include "sampled_softmax/block_sizes.h"
#include "sampled_softmax/negatives.h"
#include "team.h"
#include "workspace.h"

namespace fastpop {
namespace {

template <class Logits, class Sums>
class TilePass : SharedNegatives {
  using Row = typename Logits::Row;
  using Panel = typename Logits::Panel;
  using Exp = typename Sums::Exp;
  using Item = typename Sums::Item;
  static constexpr bool kInPlace = std::is_same_v<Sums, TableSums>;
  // Whether rows are packed from where the sums keep them.
  static constexpr bool kPacksItems = std::is_same_v<Row, Item> && !kInPlace;

 public:
  TilePass(const SampledSoftmax& a, const Tile& tile, const Logits& logits, const Sums& sums)
      : SharedNegatives(a, tile),
        logits_(logits),
        sums_(sums),
        strip_(logits.strip()),
        row_unit_(sums.row_unit()) {
    const int threads = a.threads;
    gradients_ = a.mode != SampledSoftmax::Mode::forward;
    padded_ = round_up(padded_, logits.depth_unit());
    depth_ = round_up(a.D, logits.depth_unit());
    wants_items_ = a.d_item_nD != nullptr;
    wants_columns_ = wants_items_ || a.d_bias_n != nullptr;
    wants_query_ = a.d_query_BD != nullptr || a.d_scale != nullptr;
    const int64_t column_bytes = (gradients_ && !kInPlace ? 2 : 1) * padded_ * 4;
    const BlockSizes sizes =
        block_sizes(a, round_up(a.K, tile.panel), column_bytes, Sums::kExpBytes, strip_, row_unit_);
    window_ = sizes.window;
    chunks_ = sizes.chunks;
    block_rows_ = sizes.rows;

    together_ = std::min<int64_t>(threads, a.G);
    for (int i = 0; i < together_; ++i) groups_.push_back(make_group(memory_, wants_columns_));
    for (int i = 0; i < threads; ++i) {
      scratch_.push_back(
          memory_.make<float>(std::max<int64_t>({block_rows_, padded_, strip_ * int64_t{kChunkStride}})));
      rows_.push_back(memory_.make<Row>(tile.panel * padded_));
      scratch_of_.push_back(gradients_ ? memory_.make<typename Sums::Scratch>(sums.scratch_size(padded_))
                                       : nullptr);
      scaled_.push_back(gradients_ ? memory_.make<Item>(Sums::packed(block_rows_ * padded_)) : nullptr);
    }
    panels_ = memory_.make<Panel>(Logits::packed(window_ * depth_));
    query_ = memory_.make<float>(block_rows_ * padded_);
    if constexpr (Logits::kPairs) {
      packed_query_ = memory_.make<Row>(block_rows_ * padded_);
    } else {
      packed_query_ = query_;
    }
    const int64_t exps = chunks_ * block_rows_ * kChunkStride;
    if (gradients_) {
      if (!kInPlace) items_ = memory_.make<Item>(Sums::packed(window_ * padded_));
      exps_ = memory_.make<Exp>(Sums::packed(exps));
      reference_ = memory_.make<float>(chunks_ * block_rows_);
      d_query_ = memory_.make<float>(block_rows_ * padded_);
      up_ = memory_.make<Upstream>(block_rows_);
      d_pos_ = memory_.make<float>(a.B);
    }
    // Groups are sorted while no exponentials are kept: the same memory.
    auto* buffer = reinterpret_cast<SortItem*>(exps_);
    const int64_t fits = buffer == nullptr ? 0 : exps * Sums::kExpBytes / 16;
    if (fits < 2 * a.K * together_) buffer = memory_.make<SortItem>(2 * a.K * together_);
    for (int i = 0; i < together_; ++i) sorts_.push_back(buffer + 2 * a.K * i);
    lse_ = memory_.make<OnlineLse>(a.B);
    for (int64_t b = 0; b < a.B; ++b) lse_[b] = OnlineLse{};
    if (a.d_scale != nullptr) {
      d_scale_ = memory_.make<double>(a.B);
      std::fill(d_scale_, d_scale_ + a.B, 0.0);
    }
    if (a.index != nullptr) pos_place_ = memory_.make<int32_t>(a.B);
  }

  void run(int me, int team) {
    logits_.enter();
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
    logits_.leave();
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
    if (a_.d_item_nD != nullptr) std::fill(a_.d_item_nD + r.first * a_.D, a_.d_item_nD + r.last * a_.D, 0.0f);
    if (a_.d_bias_n != nullptr) std::fill(a_.d_bias_n + r.first, a_.d_bias_n + r.last, 0.0);
    const Range rows = part(a_.B, 1, me, team);
    for (int64_t b = rows.first; b < rows.last; ++b) pos_place_[b] = a_.index->place(a_.pos_id_B[b]);
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

  void pack(const Group& group, const Window& w, int me, int team) {
    constexpr int64_t kAhead = 16;
    const Range mine = part(w.last - w.first, tile_.panel, me, team);
    for (int64_t k = mine.first; k < mine.last; k += tile_.panel) {
      Row* rows = rows_[me];
      if constexpr (kPacksItems) {
        if (items_ != nullptr) rows = items_ + k * padded_;
      }
      for (int64_t j = 0; j < tile_.panel; ++j) {
        const int64_t column = w.first + k + j;
        if (column + kAhead < group.num) prefetch_row(a_.item_VD, group.id[column + kAhead], a_.D);
        fetch_or_clear(logits_, a_.item_VD, id_of(group, column), a_.D, padded_, rows + j * padded_);
        if constexpr (Logits::kPairs && !Sums::kRounds) {
          if (items_ != nullptr)
            fetch_or_clear(tile_, a_.item_VD, id_of(group, column), a_.D, padded_,
                           items_ + (k + j) * padded_);
        }
      }
      logits_.pack(rows, padded_, depth_, panels_ + Logits::packed(k * depth_));
      if constexpr (Sums::kRounds) {
        if (items_ != nullptr)
          sums_.pair_rows(rows, tile_.panel, padded_, items_ + Sums::packed(k * padded_));
      }
    }
  }

  static int64_t id_of(const Group& group, int64_t column) {
    return column < group.num ? group.id[column] : -1;
  }

  // Steps 1 and 2 for this thread's rows of the block [first, last).
  void sweep_rows(const Group& group, const Window& w, int64_t first, int64_t last, int me, int team) {
    const Range mine = part(last - first, strip_, me, team);
    if (mine.first == mine.last) return;
    // Whoever has the last row leaves whole units to the sums over rows.
    const int64_t end = round_up(mine.last, mine.last == last - first ? row_unit_ : strip_);
    for (int64_t r = mine.first; r < end; ++r) {
      const int64_t b = r < mine.last ? first + r : -1;
      fetch_or_clear(tile_, a_.query_BD, b, a_.D, padded_, query_ + r * padded_);
      if constexpr (Logits::kPairs)
        fetch_or_clear(logits_, a_.query_BD, b, a_.D, padded_, packed_query_ + r * padded_);
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
  void one_strip(const Group& group, const Window& w, int64_t first, int64_t last, int64_t r, int64_t left,
                 int64_t columns, int me) {
    const int64_t at = left - w.first, chunk = at / kChunk;
    Exp* kept = gradients_ ? exps_at(chunk, r) : nullptr;
    float* e = sums_.logits_buffer(kept, scratch_[me]);
    float* reference = gradients_ ? reference_ + chunk * block_rows_ + r : nullptr;
    float largest[kMostTileRows], keep[kMostTileRows];
    logits_.make(packed_query_ + r * padded_, padded_, depth_, panels_ + Logits::packed(at * depth_), columns,
                 scale_, group.bias + left, e, largest);
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
    if (!gradients_) return;
    float* d_query = wants_query_ ? d_query_ + r * padded_ : nullptr;
    if constexpr (kInPlace) {
      const int64_t real = std::clamp<int64_t>(group.num - left, 0, columns);
      if (wants_query_) sums_.add_rows_of(e, real, a_.item_VD, group.id + left, padded_, keep, d_query);
    } else {
      sums_.add_rows(e, columns, wants_items_ ? kept : nullptr, items_ + Sums::packed(at * padded_), padded_,
                     keep, scratch_of_[me], d_query);
    }
  }

  // The exponentials of rows r.. of the block against a chunk; r is a whole pair.
  Exp* exps_at(int64_t chunk, int64_t r) const {
    return exps_ + Sums::packed(chunk * block_rows_ + r) * kChunkStride;
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
    if constexpr (Sums::kRounds) {
      if (!wants_items_) return;
      const uint32_t other = r % 2 == MUTANT(8, 1, 0) ? 0xffff0000u : 0x0000ffffu;
      uint32_t* pairs = exps_at(chunk, r);
      for (int64_t k = 0; k < kChunk; ++k) pairs[k] &= other;
    } else {
      float* row = exps_at(chunk, r);
      std::fill(row, row + kChunk, 0.0f);
    }
  }

  static int64_t chunks_of(const Window& w) { return (w.last - w.first + kChunk - 1) / kChunk; }

  // Step 3 for this thread's columns.
  void sweep_columns(const Group& group, const Window& w, int64_t num_rows, int me, int team) {
    const int64_t stop = std::min(w.last, group.num);
    if (stop <= w.first) return;
    const Range mine = part(stop - w.first, strip_, me, team);
    float* f = scratch_[me];
    for (int64_t chunk = mine.first / kChunk; chunk * kChunk < mine.last; ++chunk) {
      const int64_t from = std::max<int64_t>(mine.first - chunk * kChunk, 0);
      const int64_t to = std::min<int64_t>(mine.last - chunk * kChunk, kChunk);
      const float* factor = reference_ + chunk * block_rows_;
      const int32_t* row_of = group.row_of + w.first + chunk * kChunk;
      const Exp* e = exps_at(chunk, 0);
      if constexpr (!Sums::kRounds) {
        if (a_.d_bias_n != nullptr) {
          for (int64_t r = 0; r < num_rows; ++r) f[r] = up_[r].d_lse * factor[r];
          tile_.add_column_sums(e, kChunkStride, num_rows, from, to, f, row_of, a_.d_bias_n);
        }
      }
      if (!wants_items_) continue;
      for (int64_t r = 0; r < num_rows; ++r) f[r] = scale_ * up_[r].d_lse * factor[r];
      Item* scaled = scaled_[me];
      sums_.scale_rows(query_, padded_, f, num_rows, scaled);
      sums_.add_columns(e, num_rows, from, to, scaled, padded_, a_.D, row_of, a_.d_item_nD, a_.D);
    }
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
      const double factor = MUTANT(11, 1.0, a_.scale) * d_pos_[b];
      tile_.axpy(static_cast<float>(factor), q, a_.D, a_.d_item_nD + n * a_.D);
    }
  }

  Workspace memory_;
  Barrier meet_;
  int64_t together_;  // groups prepared at a time
  int64_t window_, block_rows_, chunks_;
  bool wants_items_, wants_columns_, wants_query_, gradients_;
  const Logits logits_;
  const Sums sums_;
  int64_t strip_, row_unit_;  // rows of a strip; of what sums over rows take, whole strips
  int64_t depth_;             // D in whole units of the logits
  std::vector<Group> groups_;
  std::vector<SortItem*> sorts_;
  // A thread's: at least a strip of exponentials, a row, a number per row of the block; a panel's rows; what
  // the sums want; [block row, padded] queries with their factors.
  std::vector<float*> scratch_;
  std::vector<Row*> rows_;
  std::vector<typename Sums::Scratch*> scratch_of_;
  std::vector<Item*> scaled_;
  // Pairs hold two numbers: of a column's dimensions in panels, of two rows in items and exponentials.
  Panel* panels_ = nullptr;  // [window / panel][depth][panel]
  Item* items_ = nullptr;    // [window, padded]
  Exp* exps_ = nullptr;      // [chunk][block row][kChunkStride]
  // [chunk][block row]: what e is measured from; once lse is known, the factor from e to p.
  float* reference_ = nullptr;
  Row* packed_query_ = nullptr;  // [block row, padded]; query_ itself where logits are of fp32
  float* query_ = nullptr;       // [block row, padded]
  float* d_query_ = nullptr;     // [block row, padded]
  Upstream* up_ = nullptr;       // [block row]
  OnlineLse* lse_ = nullptr;     // [B]
  float* d_pos_ = nullptr;       // [B]
  double* d_scale_ = nullptr;    // [B]
  int32_t* pos_place_ = nullptr;
};

}  // namespace

void sampled_softmax_tiles(const SampledSoftmax& a, const Tile& tile) {
  const auto run = [&](const auto& logits, const auto& sums) {
    TilePass pass(a, tile, logits, sums);
    in_team(a.threads, [&](int me, int team) { pass.run(me, team); });
    pass.finish();
  };
  const auto choose = [&](const auto& logits, const auto& sums) {
    if constexpr (std::is_same_v<std::decay_t<decltype(logits)>, Fp32Logits>) {
      if (TableSums::takes(tile, a.item_VD, a.D)) return run(logits, TableSums(tile));
    }
    run(logits, sums);
  };
  with_products(tile, a.query_BD, a.item_VD, a.d_bias_n != nullptr || a.d_scale != nullptr, choose);
}

}  // namespace fastpop
