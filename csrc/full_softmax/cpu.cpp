// Softmax over the whole catalogue on the CPU; the logits live in L1, one strip at a time.
//
// The items are cut into parts (item_parts.h), and a part into chunks, which threads take as they come; a
// chunk, packed, stays in L2 while all rows go past it.
//   forward:  per strip of six rows: logits in a register tile, exponentials in L1, into the part's own
//             running (largest, sum) of each row; then the parts' sums are merged.
//   backward: per block of rows: the logits again, e = exp(z - round(lse)); d_query += e . items, in
//             the part's own copy; d_items of the chunk += e^T . (f q), in L2, written out once. f
//             = d_lse * exp(round(lse) - lse) is a row's only factor, so e is never touched again.
// A part's chunks follow each other and merges are in order of parts, which depend on V alone: no
// atomics, and the same bits on any number of threads.
// Cost: 2 B V D FLOPs forward, 6 B V D backward. Memory: packed rows (2 B D numbers), a part's
// d_query (B D), where B is at most a block of rows that fits in kRowBytes or an eighth of the table's
// gradient, and a thread's four chunks.
#include "full_softmax/full_softmax.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <vector>

#include "fetch_rows.h"
#include "item_parts.h"
#include "mutant.h"
#include "online_lse.h"
#include "products.h"
#include "ranges.h"
#include "sampled_softmax/logit.h"
#include "steps.h"
#include "workspace.h"

namespace fastpop {
namespace {

// Rows whose exponentials of one chunk are kept: 48 * 592 * 4 bytes stay in L2 beside the chunk. Whole
// units of whatever sums over them.
constexpr int64_t kBlockRows = 48;
constexpr int64_t kRoundedBlockRows = 96;
constexpr int64_t kRowBytes = int64_t{16} << 20;

template <class Logits, class Sums>
class FullPass {
  using Row = typename Logits::Row;
  using Panel = typename Logits::Panel;
  using Exp = typename Sums::Exp;
  using Item = typename Sums::Item;

  // What one thread works with. Pairs hold two numbers: of a column's dimensions in panels, of two rows in
  // items and kept exponentials.
  struct Own {
    Row* rows;        // [kChunk, padded]
    Panel* panels;    // [kChunk / panel][depth][panel]
    Item* items;      // [kChunk, padded]; rows themselves where both are fp32
    float* bias;      // [kChunk]
    float* strip;     // [strip, kChunkStride] where exponentials are not kept as they are made
    Exp* exps;        // [block_rows, kChunkStride]
    float* pos_item;  // [padded]
    float* d_items;   // [kChunk, padded]
    typename Sums::Scratch* scratch;
  };

  // What one part of the items sums.
  struct Part {
    float* d_query;  // [rows, padded]
    OnlineLse* lse;  // [rows]
  };

 public:
  FullPass(const FullSoftmax& a, const Tile& tile, const Logits& logits, const Sums& sums, bool backward)
      : a_(a),
        tile_(tile),
        logits_(logits),
        sums_(sums),
        items_(a.V, tile.panel),
        padded_(round_up(a.D, tile.lanes)),
        block_rows_(Sums::kRounds ? kRoundedBlockRows : kBlockRows),
        backward_(backward),
        strip_(logits.strip()),
        row_unit_(sums.row_unit()) {
    padded_ = round_up(padded_, logits.depth_unit());
    depth_ = round_up(a.D, logits.depth_unit());

    const int64_t copies = backward ? items_.num() + 2 : 2;
    const int64_t bytes = std::max(kRowBytes, a.V * padded_ / 2);
    const int64_t fit = bytes / (copies * padded_ * 4) / kRoundedBlockRows * kRoundedBlockRows;
    rows_ = std::min(round_up(a.B, row_unit_), std::max(fit, 4 * kBlockRows));
    query_ = memory_.make<float>(rows_ * padded_);
    if constexpr (Logits::kPairs) {
      packed_query_ = memory_.make<Row>(rows_ * padded_);
    } else {
      packed_query_ = query_;
    }
    if (backward) {
      scaled_ = memory_.make<Item>(Sums::packed(rows_ * padded_));
      reference_ = memory_.make<float>(rows_);
      factor_ = memory_.make<float>(rows_);
      d_pos_ = memory_.make<float>(rows_);
      identity_ = memory_.make<int32_t>(kChunk);
      for (int k = 0; k < kChunk; ++k) identity_[k] = k;
    }
    for (int i = 0; i < a.threads; ++i) {
      Own own{};
      own.rows = memory_.make<Row>(kChunk * padded_);
      own.panels = memory_.make<Panel>(Logits::packed(kChunk * depth_));
      own.bias = memory_.make<float>(kChunk);
      own.strip = memory_.make<float>(strip_ * kChunkStride);
      if (backward) {
        if constexpr (std::is_same_v<Row, Item>) {
          own.items = own.rows;
        } else {
          own.items = memory_.make<Item>(Sums::packed(kChunk * padded_));
        }
        own.exps = memory_.make<Exp>(Sums::packed(block_rows_ * kChunkStride));
        own.pos_item = memory_.make<float>(padded_);
        own.d_items = memory_.make<float>(kChunk * padded_);
        own.scratch = memory_.make<typename Sums::Scratch>(sums.scratch_size(padded_));
      }
      own_.push_back(own);
    }
    for (int p = 0; p < items_.num(); ++p)
      parts_.push_back({backward ? memory_.make<float>(rows_ * padded_) : nullptr,
                        backward ? nullptr : memory_.make<OnlineLse>(rows_)});
    if (a.d_scale != nullptr) d_scale_B_ = memory_.make<double>(a.B);
  }

  void run() {
    const int pieces = a_.threads == 1 ? 1 : 4 * a_.threads;
    Steps steps(static_cast<int>(items_.num_chunks()) + 2);
    for (int64_t block = 0; block * rows_ < a_.B; ++block) {
      steps.gate(kEnter, block, pieces);
      const int summed = items_.add_to(steps, kChunks, block * items_.num_chunks());
      if (backward_) steps.add(kPositives, block, items_.num(), {-1, -1, summed});
      steps.gate(kLeave, block, pieces);
    }
    steps.run(
        a_.threads, [&](const Steps::Piece& piece, int me) { work(piece, me); }, [&] { logits_.enter(); },
        [&] { logits_.leave(); });
  }

  double d_scale() const { return std::accumulate(d_scale_B_, d_scale_B_ + a_.B, 0.0); }

 private:
  enum Kind : int { kEnter, kChunks, kPositives, kLeave };

  void work(const Steps::Piece& piece, int me) {
    const auto [kind, what, number, of] = piece;
    const int i = static_cast<int>(number), parts = static_cast<int>(of);
    const int64_t block = kind == kChunks ? what / items_.num_chunks() : what;
    const int64_t first = block * rows_, num = std::min(rows_, a_.B - first);
    if (kind == kEnter) return enter_rows(first, num, i, parts);
    if (kind == kPositives) return add_positives(items_.items(i), first, num);
    if (kind == kLeave) return leave_rows(first, num, i, parts, me);
    const int64_t j = what % items_.num_chunks();
    if (j == 0) begin(parts_[i], num);
    const Range chunk = items_.chunk(i, j);
    if (chunk.first == chunk.last) return;
    pack(own_[me], chunk.first, chunk.last);
    if (backward_) {
      backward_chunk(own_[me], parts_[i], first > 0, chunk.first, chunk.last, num);
    } else {
      forward_chunk(own_[me], parts_[i], first, chunk.first, chunk.last, num);
    }
  }

  double bias_of(int64_t id) const {
    if (a_.log_prior_V == nullptr || a_.prior_weight == 0) return 0;
    const float log_p = a_.log_prior_V[id];
    if (!(log_p < HUGE_VALF)) __atomic_store_n(a_.bad_prior_id, id, __ATOMIC_RELAXED);  // NaN too
    return prior_term(a_.prior_weight, log_p);
  }

  void begin(Part& part, int64_t num) {
    if (backward_) {
      std::fill(part.d_query, part.d_query + round_up(num, row_unit_) * padded_, 0.0f);
    } else {
      std::fill(part.lse, part.lse + num, OnlineLse{});
    }
  }

  // The block's rows in fp32, zeros to a whole unit; backward: what e is measured from, factors.
  void enter_rows(int64_t first, int64_t num, int i, int parts) {
    const Range mine = part(round_up(num, row_unit_), Sums::kRounds ? block_rows_ : row_unit_, i, parts);
    for (int64_t r = mine.first; r < mine.last; ++r) {
      const int64_t b = r < num ? first + r : -1;
      fetch_or_clear(tile_, a_.query_BD, b, a_.D, padded_, query_ + r * padded_);
      if constexpr (Logits::kPairs)
        fetch_or_clear(logits_, a_.query_BD, b, a_.D, padded_, packed_query_ + r * padded_);
      if (backward_) enter_backward(first, r, r < num);
    }
    if (backward_)
      for (int64_t r = mine.first; r < mine.last; r += block_rows_)
        sums_.scale_rows(query_ + r * padded_, padded_, factor_ + r, std::min(mine.last - r, block_rows_),
                         scaled_ + Sums::packed(r * padded_));
  }

  void enter_backward(int64_t first, int64_t r, bool is_row) {
    reference_[r] = HUGE_VALF;  // e = 0
    factor_[r] = d_pos_[r] = 0;
    const int64_t b = first + r;
    if (is_row && std::isfinite(a_.lse_B[b]) && std::isfinite(a_.pos_logit_B[b])) {
      const float lse = a_.lse_B[b];
      reference_[r] = std::rint(lse);
      factor_[r] = static_cast<float>(a_.d_lse_B[b] * std::exp(double(reference_[r]) - lse));
      d_pos_[r] = a_.d_pos_B[b];
    }
  }

  // The item of column k, or -1: past the last, or removed, whose row may hold anything.
  static int64_t id_of(const Own& own, int64_t left, int64_t k) {
    return own.bias[k] == -HUGE_VALF ? -1 : left + k;
  }

  void pack(Own& own, int64_t left, int64_t stop) {
    const int64_t columns = round_up(stop - left, tile_.panel);
    for (int64_t k = 0; k < columns; ++k) {
      const bool has_prior = MUTANT(6, !(backward_ && Logits::kPairs), true);
      own.bias[k] = left + k >= stop ? -HUGE_VALF : has_prior ? static_cast<float>(bias_of(left + k)) : 0.0f;
      fetch_or_clear(logits_, a_.item_VD, id_of(own, left, k), a_.D, padded_, own.rows + k * padded_);
      if constexpr (Logits::kPairs && !Sums::kRounds) {
        if (backward_)
          fetch_or_clear(tile_, a_.item_VD, id_of(own, left, k), a_.D, padded_, own.items + k * padded_);
      }
    }
    for (int64_t k = 0; k < columns; k += tile_.panel)
      logits_.pack(own.rows + k * padded_, padded_, depth_, own.panels + Logits::packed(k * depth_));
    if constexpr (Sums::kRounds) {
      if (backward_) sums_.pair_rows(own.rows, columns, padded_, own.items);
    }
  }

  void logits(const Own& own, int64_t r, int64_t columns, float* e, float* largest) const {
    logits_.make(packed_query_ + r * padded_, padded_, depth_, own.panels, columns,
                 static_cast<float>(a_.scale), own.bias, e, largest);
  }

  // A positive's logit is the one that its row sums: a loss is never negative, a sure row's is 0.
  void forward_chunk(Own& own, Part& part, int64_t first, int64_t left, int64_t stop, int64_t num) {
    const int64_t columns = round_up(stop - left, tile_.panel);
    float largest[kMostTileRows];
    for (int64_t r = 0; r < num; r += strip_) {
      logits(own, r, columns, own.strip, largest);
      for (int64_t i = 0; i < strip_ && r + i < num; ++i) {
        float* row = own.strip + i * kChunkStride;
        const int64_t pos_id = a_.pos_id_B[first + r + i];
        if (left <= pos_id && pos_id < stop) a_.pos_logit_B[first + r + i] = row[pos_id - left];
        OnlineLse& lse = part.lse[r + i];
        lse.sum += tile_.exp_row(row, columns, lse.raise(largest[i]));
      }
    }
  }

  // adds: to what earlier rows left in the gradients.
  void backward_chunk(Own& own, Part& part, bool adds, int64_t left, int64_t stop, int64_t num) {
    const int64_t columns = round_up(stop - left, tile_.panel);
    const bool wants_items = a_.d_item_VD != nullptr;
    const bool wants_query = a_.d_query_BD != nullptr || a_.d_scale != nullptr;
    float keep[kMostTileRows], largest[kMostTileRows];
    std::fill(keep, keep + kMostTileRows, 1.0f);
    if (wants_items) std::fill(own.d_items, own.d_items + columns * padded_, 0.0f);
    if (a_.d_bias_V != nullptr && !adds) std::fill(a_.d_bias_V + left, a_.d_bias_V + stop, 0.0);
    for (int64_t first = 0; first < num; first += block_rows_) {
      const int64_t last = std::min(first + block_rows_, num);
      for (int64_t r = first; r < round_up(last, row_unit_); r += strip_) {
        Exp* kept = own.exps + Sums::packed(r - first) * kChunkStride;
        float* e = sums_.logits_buffer(kept, own.strip);
        logits(own, r, columns, e, largest);
        for (int64_t i = 0; i < strip_; ++i) tile_.exp_row(e + i * kChunkStride, columns, reference_[r + i]);
        sums_.add_rows(e, columns, kept, own.items, padded_, keep, own.scratch,
                       wants_query ? part.d_query + r * padded_ : nullptr);
      }
      if (wants_items)
        sums_.add_columns(own.exps, last - first, 0, stop - left, scaled_ + Sums::packed(first * padded_),
                          padded_, padded_, identity_, own.d_items, padded_);
      if constexpr (!Sums::kRounds) {
        if (a_.d_bias_V != nullptr)
          tile_.add_column_sums(own.exps, kChunkStride, last - first, 0, stop - left, factor_ + first,
                                identity_, a_.d_bias_V + left);
      }
    }
    if (!wants_items) return;
    const auto scale = static_cast<float>(a_.scale);
    for (int64_t k = 0; k < stop - left; ++k) {
      const float* sum = own.d_items + k * padded_;
      float* out = a_.d_item_VD + (left + k) * a_.D;
      for (int64_t d = 0; d < a_.D; ++d) out[d] = adds ? out[d] + scale * sum[d] : scale * sum[d];
    }
  }

  // The positives' share of the gradients of a part's items, rows in order.
  void add_positives(const Range& items, int64_t first, int64_t num) {
    for (int64_t r = 0; r < num; ++r) {
      const int64_t id = a_.pos_id_B[first + r];
      if (id < items.first || id >= items.last || d_pos_[r] == 0) continue;
      if (a_.d_bias_V != nullptr) a_.d_bias_V[id] += d_pos_[r];
      if (a_.d_item_VD != nullptr)
        tile_.axpy(static_cast<float>(a_.scale * d_pos_[r]), query_ + r * padded_, a_.D,
                   a_.d_item_VD + id * a_.D);
    }
  }

  void leave_rows(int64_t first, int64_t num, int i, int parts, int me) {
    const Range mine = part(num, 1, i, parts);
    for (int64_t r = mine.first; r < mine.last; ++r) {
      const int64_t b = first + r;
      if (!backward_) {
        double lse = -HUGE_VAL;
        for (const Part& one : parts_) lse = log_add(lse, one.lse[r].log());
        a_.lse_B[b] = static_cast<float>(lse);
        continue;
      }
      if (a_.d_query_BD == nullptr && a_.d_scale == nullptr) continue;
      float* pos_item = own_[me].pos_item;
      const int64_t pos_id = bias_of(a_.pos_id_B[b]) == -HUGE_VAL ? -1 : a_.pos_id_B[b];
      fetch_or_clear(tile_, a_.item_VD, pos_id, a_.D, padded_, pos_item);
      float* d = parts_[0].d_query + r * padded_;
      for (size_t p = 1; p < parts_.size(); ++p)
        tile_.axpy(1.0f, parts_[p].d_query + r * padded_, padded_, d);
      for (int64_t j = 0; j < padded_; ++j) d[j] = factor_[r] * d[j] + d_pos_[r] * pos_item[j];
      if (d_scale_B_ != nullptr) d_scale_B_[b] = tile_.dot(query_ + r * padded_, d, padded_);
      if (a_.d_query_BD == nullptr) continue;
      for (int64_t j = 0; j < a_.D; ++j) a_.d_query_BD[b * a_.D + j] = static_cast<float>(a_.scale) * d[j];
    }
  }

  const FullSoftmax& a_;
  const Tile& tile_;
  const Logits logits_;
  const Sums sums_;
  const ItemParts items_;
  int64_t padded_, rows_, block_rows_;
  bool backward_;
  Workspace memory_;
  std::vector<Own> own_;
  std::vector<Part> parts_;
  double* d_scale_B_ = nullptr;  // [B]
  float* query_ = nullptr;       // [rows, padded]
  Row* packed_query_ = nullptr;  // [rows, padded]; query_ itself where logits are of fp32
  Item* scaled_ = nullptr;       // [rows, padded] factor * query, a block's as scale_rows leaves them
  float* reference_ = nullptr;   // [rows] what e is measured from
  float* factor_ = nullptr;      // [rows] from e to the gradient of a logit
  float* d_pos_ = nullptr;       // [rows]
  int32_t* identity_ = nullptr;  // [kChunk]
  int64_t strip_, row_unit_;     // rows of a strip; of what sums over rows take, whole strips
  int64_t depth_;                // D in whole units of the logits
};

void run(const FullSoftmax& args, const Tile& tile, bool backward) {
  if (args.B == 0) {
    if (args.d_item_VD != nullptr) std::fill(args.d_item_VD, args.d_item_VD + args.V * args.D, 0.0f);
    if (args.d_bias_V != nullptr) std::fill(args.d_bias_V, args.d_bias_V + args.V, 0.0);
    return;
  }
  const auto with = [&](const auto& logits, const auto& sums) {
    FullPass pass(args, tile, logits, sums, backward);
    pass.run();
    if (args.d_scale != nullptr) *args.d_scale = pass.d_scale();
  };
  with_products(tile, args.query_BD, args.item_VD, args.d_bias_V != nullptr || args.d_scale != nullptr, with);
}

}  // namespace

void full_softmax_forward(const FullSoftmax& args, const Tile& tile) { run(args, tile, false); }
void full_softmax_backward(const FullSoftmax& args, const Tile& tile) { run(args, tile, true); }

}  // namespace fastpop
