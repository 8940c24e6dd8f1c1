// Rows that share negatives, through register tiles.
//
// A group's negatives, sorted, each id once with log(its count) in its bias, are packed, and its rows go
// past them in blocks:
//   1. pieces of rows, chunk by chunk: logits in a register tile, exponentials in L1 against the largest
//      logit so far, d_query += e . items at once; e stays in a buffer of the block;
//   2. each row's log-sum-exp; only now is p = e * exp(chunk's reference - lse) known;
//   3. pieces of columns: d_items += e^T . (f q), q scaled by the row's weight and by that factor, so
//      that e itself is never touched again.
// Threads take pieces as they come (steps.h): no atomics, no copies per thread, and sums in a fixed
// order, since a column's part of a block follows its part of the block before. A few blocks are under
// way at once, so that a thread without a core holds up none but its own piece. Blocks are cut the same
// for any number of threads. Cost: 2 B K D FLOPs forward, 6 fused, 6 backward alone (it makes the logits
// again); memory: packed items (K D numbers, a window of them when K is large; twice that where the
// table's rows are no whole vectors of fp32, which are read where they lie; twice either with several
// groups), and blocks of exponentials (block_sizes.h; 1.2 MiB each at K = 8,192 in fp32, 1 MiB in 16 bits):
// one with one thread, otherwise four (six in 16 bits), or two and one for each two threads where that is
// more.
#include "sampled_softmax/tile_pass.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "fetch_rows.h"
#include "mutant.h"
#include "online_lse.h"
#include "prefetch.h"
#include "products.h"
#include "ranges.h"
#include "sampled_softmax/block_sizes.h"
#include "sampled_softmax/negatives.h"
#include "steps.h"
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
        steps_(2 * std::max(kMostBlocks, 2 + a.threads / 2) + 2 * a.threads + 8),
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
    num_blocks_ = threads > 1 && wants_columns_ ? std::max(kMostBlocks, 2 + threads / 2) : threads;

    const int64_t windows = a.G * ((round_up(a.K, tile.panel) + window_ - 1) / window_);
    num_groups_ = std::min<int64_t>(threads > 1 ? std::max(2, threads) : 1, a.G);
    for (int64_t i = 0; i < num_groups_; ++i) {
      groups_.push_back(make_group(memory_, wants_columns_));
      sorts_.push_back(memory_.make<SortItem>(2 * a.K));
    }
    for (int i = 0; i < threads; ++i) {
      scratch_.push_back(
          memory_.make<float>(std::max<int64_t>({block_rows_, padded_, strip_ * int64_t{kChunkStride}})));
      rows_.push_back(memory_.make<Row>(tile.panel * padded_));
      scratch_of_.push_back(gradients_ ? memory_.make<typename Sums::Scratch>(sums.scratch_size(padded_))
                                       : nullptr);
      scaled_.push_back(gradients_ ? memory_.make<Item>(Sums::packed(block_rows_ * padded_)) : nullptr);
    }
    for (int64_t i = 0; i < std::min<int64_t>(threads > 1 ? 2 : 1, windows); ++i) {
      packed_.push_back(
          {memory_.make<Panel>(Logits::packed(window_ * depth_)),
           gradients_ && !kInPlace ? memory_.make<Item>(Sums::packed(window_ * padded_)) : nullptr});
    }
    for (int64_t i = 0; i < num_blocks_; ++i) blocks_.push_back(make_block());
    lse_ = memory_.make<OnlineLse>(a.B);
    for (int64_t b = 0; b < a.B; ++b) lse_[b] = OnlineLse{};
    if (gradients_) d_pos_ = memory_.make<float>(a.B);
    if (a.d_scale != nullptr) {
      d_scale_ = memory_.make<double>(a.B);
      std::fill(d_scale_, d_scale_ + a.B, 0.0);
    }
    if (a.index != nullptr) pos_place_ = memory_.make<int32_t>(a.B);
  }

  void run() {
    plan();
    steps_.run(
        a_.threads, [&](const Steps::Piece& piece, int me) { work(piece, me); }, [&] { logits_.enter(); },
        [&] { logits_.leave(); });
  }

  void finish() {
    if (a_.d_scale == nullptr) return;
    double sum = 0;
    for (int64_t b = 0; b < a_.B; ++b) sum += d_scale_[b];
    *a_.d_scale = sum;
  }

 private:
  // A block of rows and what is kept of it. Pairs hold two numbers: of two rows in exponentials.
  struct Block {
    Exp* exps = nullptr;  // [chunk][row][kChunkStride]
    // [chunk][row]: what e is measured from; once lse is known, the factor from e to p.
    float* reference = nullptr;
    Row* packed_query = nullptr;  // [row, padded]; query itself where logits are of fp32
    float* query = nullptr;       // [row, padded]
    float* d_query = nullptr;     // [row, padded]
    Upstream* up = nullptr;       // [row]
  };

  Block make_block() {
    Block block;
    block.query = memory_.make<float>(block_rows_ * padded_);
    if constexpr (Logits::kPairs) {
      block.packed_query = memory_.make<Row>(block_rows_ * padded_);
    } else {
      block.packed_query = block.query;
    }
    if (!gradients_) return block;
    block.exps = memory_.make<Exp>(Sums::packed(chunks_ * block_rows_ * kChunkStride));
    block.reference = memory_.make<float>(chunks_ * block_rows_);
    block.d_query = memory_.make<float>(block_rows_ * padded_);
    block.up = memory_.make<Upstream>(block_rows_);
    return block;
  }

  // A group's columns as they are packed.
  struct Packed {
    Panel* panels;  // [window / panel][depth][panel], pairs of a column's dimensions
    Item* items;    // [window, padded], pairs of columns; null where they are read in the table
  };

  // Columns of a group that are packed together, and rows that go past them together.
  struct Window {
    int64_t group, first, last;  // columns, before it is known how many are there
    int64_t packed;              // where
    bool is_first;
  };
  struct Rows {
    int64_t window, first, last;  // rows of the batch
    int64_t block;                // where they are kept, of those that have columns
  };

  enum Kind : int { kPrepare, kClear, kPack, kRows, kColumns, kPositives };

  // How many pieces so many operations are worth, at most `most`.
  int64_t pieces_of(int64_t work, int64_t most) const {
    constexpr int64_t kWork = 4'000'000;
    if (a_.threads == 1) return 1;
    return std::clamp<int64_t>(work / kWork, 1, std::min<int64_t>(most, Steps::kMostFollowing));
  }

  void plan() {
    const int threads = a_.threads;
    const int64_t all_columns = round_up(a_.K, tile_.panel);
    const int64_t ahead = num_groups_ - 1;
    std::vector<int> prepared(a_.G, -1), left(a_.G, -1);  // steps
    std::vector<int> packed(packed_.size(), -1), kept(num_blocks_, -1);
    int columns = -1, clear = -1;
    const auto prepare_group = [&](int64_t g) {
      if (g < a_.G) prepared[g] = steps_.add(kPrepare, g, 1, {g >= num_groups_ ? left[g - num_groups_] : -1});
    };
    for (int64_t g = 0; g <= ahead; ++g) prepare_group(g);
    if (a_.index != nullptr)
      clear = steps_.add(kClear, 0, pieces_of(a_.index->size() * a_.D * 8, 2 * threads), {});
    for (int64_t g = 0; g < a_.G; ++g) {
      if (g > 0) prepare_group(g + ahead);
      const int64_t start = g * a_.group_size, stop = std::min(start + a_.group_size, a_.B);
      for (int64_t first = 0; first < all_columns; first += window_) {
        const int64_t last = std::min(first + window_, all_columns);
        const auto w = static_cast<int64_t>(windows_.size());
        const int64_t where = w % static_cast<int64_t>(packed_.size());
        windows_.push_back({g, first, last, where, first == 0});
        const int64_t pack_pieces = pieces_of((last - first) * padded_ * 16, 4 * threads);
        // Rows go on with what an earlier window left of them.
        const int pack = first == 0 ? steps_.add(kPack, w, pack_pieces, {prepared[g], packed[where]})
                                    : steps_.gate(kPack, w, pack_pieces);
        if (!wants_columns_) {
          row_sets_.push_back({w, start, stop, -1});
          const int64_t blocks = (stop - start + block_rows_ - 1) / block_rows_;
          packed[where] = left[g] = steps_.add(kRows, rows_last(), blocks, {pack});
          continue;
        }
        bool is_first = true;
        for (int64_t b = start; b < stop; b += block_rows_) {
          const int64_t end = std::min(b + block_rows_, stop);
          const int64_t at = static_cast<int64_t>(row_sets_.size()) % num_blocks_;
          row_sets_.push_back({w, b, end, at});
          const int64_t work = 2 * (end - b) * (last - first) * padded_;
          const int64_t strips = (end - b + strip_ - 1) / strip_;
          const int rows = steps_.add(kRows, rows_last(),
                                      pieces_of(2 * work, std::min<int64_t>(strips, std::max(2, threads))),
                                      {pack, kept[at]});
          // A column's sums follow each other; another window has others.
          Steps::Needs needs{rows};
          if (is_first) {
            needs.other = columns < 0 ? clear : columns;
            column_pieces_ = pieces_of(work, 2 * threads);
          } else {
            needs.follows = columns;
          }
          columns = kept[at] = packed[where] = left[g] =
              steps_.add(kColumns, rows_last(), column_pieces_, needs);
          is_first = false;
        }
      }
    }
    if (wants_columns_) steps_.gate(kPositives, 0, pieces_of(a_.B * a_.D * 64, 2 * threads));
  }

  int64_t rows_last() const { return static_cast<int64_t>(row_sets_.size()) - 1; }

  void work(const Steps::Piece& piece, int me) {
    const auto [kind, what, number, of] = piece;
    const int i = static_cast<int>(number), parts = static_cast<int>(of);
    if (kind == kClear) return clear(i, parts);
    if (kind == kPositives) return add_positives(i, parts, me);
    if (kind == kPrepare) return prepare(groups_[what % num_groups_], sorts_[what % num_groups_], what);
    if (kind == kPack) return pack(windows_[what], i, parts, me);
    const Rows& rows = row_sets_[what];
    if (kind == kColumns)
      return sweep_columns(windows_[rows.window], blocks_[rows.block], rows.last - rows.first, i, parts, me);
    if (rows.block >= 0)
      return sweep_rows(windows_[rows.window], blocks_[rows.block], rows.first, rows.last, i, parts, me);
    const int64_t first = rows.first + number * block_rows_;
    sweep_rows(windows_[rows.window], blocks_[me], first, std::min(first + block_rows_, rows.last), 0, 1, me);
  }

  const Group& group_of(const Window& w) const { return groups_[w.group % num_groups_]; }
  // Where a window's columns end, of those that are there.
  int64_t end_of(const Window& w) const { return std::clamp(columns_of(group_of(w)), w.first, w.last); }
  bool is_last(const Window& w) const { return columns_of(group_of(w)) <= w.last; }

  void clear(int i, int parts) {
    const Range r = part(a_.index->size(), 1, i, parts);
    if (a_.d_item_nD != nullptr) std::fill(a_.d_item_nD + r.first * a_.D, a_.d_item_nD + r.last * a_.D, 0.0f);
    if (a_.d_bias_n != nullptr) std::fill(a_.d_bias_n + r.first, a_.d_bias_n + r.last, 0.0);
    const Range rows = part(a_.B, 1, i, parts);
    for (int64_t b = rows.first; b < rows.last; ++b) pos_place_[b] = a_.index->place(a_.pos_id_B[b]);
  }

  void pack(const Window& w, int i, int parts, int me) {
    constexpr int64_t kAhead = 16;
    const Group& group = group_of(w);
    const Packed& packed = packed_[w.packed];
    const Range mine = part(end_of(w) - w.first, tile_.panel, i, parts);
    for (int64_t k = mine.first; k < mine.last; k += tile_.panel) {
      Row* rows = rows_[me];
      if constexpr (kPacksItems) {
        if (packed.items != nullptr) rows = packed.items + k * padded_;
      }
      for (int64_t j = 0; j < tile_.panel; ++j) {
        const int64_t column = w.first + k + j;
        if (column + kAhead < group.num) prefetch_row(a_.item_VD, group.id[column + kAhead], a_.D);
        fetch_or_clear(logits_, a_.item_VD, id_of(group, column), a_.D, padded_, rows + j * padded_);
        if constexpr (Logits::kPairs && !Sums::kRounds) {
          if (packed.items != nullptr)
            fetch_or_clear(tile_, a_.item_VD, id_of(group, column), a_.D, padded_,
                           packed.items + (k + j) * padded_);
        }
      }
      logits_.pack(rows, padded_, depth_, packed.panels + Logits::packed(k * depth_));
      if constexpr (Sums::kRounds) {
        if (packed.items != nullptr)
          sums_.pair_rows(rows, tile_.panel, padded_, packed.items + Sums::packed(k * padded_));
      }
    }
  }

  static int64_t id_of(const Group& group, int64_t column) {
    return column < group.num ? group.id[column] : -1;
  }

  // 1 and 2 for part i of the block's rows, [first, last) of the batch.
  void sweep_rows(const Window& w, const Block& block, int64_t first, int64_t last, int i, int parts,
                  int me) {
    const Range mine = part(last - first, strip_, i, parts);
    if (mine.first == mine.last || end_of(w) == w.first) return;
    // The part with the last row leaves whole units to the sums over rows.
    const int64_t end = round_up(mine.last, mine.last == last - first ? row_unit_ : strip_);
    for (int64_t r = mine.first; r < end; ++r) {
      const int64_t b = r < mine.last ? first + r : -1;
      fetch_or_clear(tile_, a_.query_BD, b, a_.D, padded_, block.query + r * padded_);
      if constexpr (Logits::kPairs)
        fetch_or_clear(logits_, a_.query_BD, b, a_.D, padded_, block.packed_query + r * padded_);
      if (gradients_) {
        std::fill(block.d_query + r * padded_, block.d_query + (r + 1) * padded_, 0.0f);
        block.up[r] = Upstream{};
        if (a_.mode == SampledSoftmax::Mode::backward && r < mine.last)
          block.up[r] = upstream(first + r, a_.lse_B[first + r]);
      }
    }
    const int64_t stop = end_of(w);
    for (int64_t left = w.first; left < stop; left += kChunk) {
      const int64_t columns = std::min<int64_t>(kChunk, stop - left);
      for (int64_t r = mine.first; r < end; r += strip_)
        one_strip(w, block, first, last, r, left, columns, me);
    }
    constexpr int64_t kAhead = 8;
    for (int64_t r = mine.first; r < mine.last; ++r) {
      if (r + kAhead < mine.last) {
        const int64_t next = a_.pos_id_B[first + r + kAhead];
        prefetch_row(a_.item_VD, next, a_.D);
        ask_for_bias(next);
      }
      finish_row(w, block, first, r, me);
    }
  }

  // A strip of rows r.. of the block against one chunk of columns.
  void one_strip(const Window& w, const Block& block, int64_t first, int64_t last, int64_t r, int64_t left,
                 int64_t columns, int me) {
    const Group& group = group_of(w);
    const Packed& packed = packed_[w.packed];
    const int64_t at = left - w.first, chunk = at / kChunk;
    Exp* kept = gradients_ ? exps_at(block, chunk, r) : nullptr;
    float* e = sums_.logits_buffer(kept, scratch_[me]);
    float* reference = gradients_ ? block.reference + chunk * block_rows_ + r : nullptr;
    float largest[kMostTileRows], keep[kMostTileRows];
    logits_.make(block.packed_query + r * padded_, padded_, depth_,
                 packed.panels + Logits::packed(at * depth_), columns, scale_, group.bias + left, e, largest);
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
        const bool live = is_row && block.up[r + i].live;
        if (live) {
          // A whole number: the rest of the log-sum-exp stays a double until it is a factor.
          reference[i] = static_cast<float>(std::rint(block.up[r + i].lse));
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
    float* d_query = wants_query_ ? block.d_query + r * padded_ : nullptr;
    if constexpr (kInPlace) {
      const int64_t real = std::clamp<int64_t>(group.num - left, 0, columns);
      if (wants_query_) sums_.add_rows_of(e, real, a_.item_VD, group.id + left, padded_, keep, d_query);
    } else {
      sums_.add_rows(e, columns, wants_items_ ? kept : nullptr, packed.items + Sums::packed(at * padded_),
                     padded_, keep, scratch_of_[me], d_query);
    }
  }

  // The exponentials of rows r.. of the block against a chunk; r is a whole pair.
  Exp* exps_at(const Block& block, int64_t chunk, int64_t r) const {
    return block.exps + Sums::packed(chunk * block_rows_ + r) * kChunkStride;
  }

  // Row r of the block after the window's last chunk: lse, the positive, the gradient of the query.
  void finish_row(const Window& w, const Block& block, int64_t first, int64_t r, int me) {
    const int64_t b = first + r;
    const bool backward = a_.mode == SampledSoftmax::Mode::backward;
    if (!backward && !is_last(w)) return;
    const bool with_positive = backward ? w.is_first : true;
    float* pos_item = scratch_[me];
    float pos_dot = 0;
    if (with_positive) {
      tile_.fetch(a_.item_VD, a_.pos_id_B[b], a_.D, padded_, pos_item);
      pos_dot = tile_.dot(block.query + r * padded_, pos_item, padded_);
    }
    if (!backward) {
      const double lse = finish_forward(b, pos_dot, lse_[b].log());
      if (!gradients_) return;
      block.up[r] = upstream(b, lse);
    }
    Upstream& up = block.up[r];
    d_pos_[b] = up.d_pos;
    for (int64_t chunk = 0; chunk < chunks_of(w); ++chunk) {
      float& reference = block.reference[chunk * block_rows_ + r];
      if (!up.live) {
        clear_exps(block, chunk, r);
        reference = 0;
      } else {
        reference = static_cast<float>(std::exp(reference - up.lse));
      }
    }
    if (!wants_query_) return;
    float* d = block.d_query + r * padded_;
    if (!up.live) {
      std::fill(d, d + padded_, 0.0f);
    } else {
      const double last = backward ? std::rint(up.lse) : lse_[b].largest;
      const float factor = static_cast<float>(up.d_lse * std::exp(last - up.lse));
      if (d_scale_ != nullptr) {
        const double negatives = double(tile_.dot(block.query + r * padded_, d, padded_)) * factor;
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
  void clear_exps(const Block& block, int64_t chunk, int64_t r) {
    if constexpr (Sums::kRounds) {
      if (!wants_items_) return;
      const uint32_t other = r % 2 == MUTANT(8, 1, 0) ? 0xffff0000u : 0x0000ffffu;
      uint32_t* pairs = exps_at(block, chunk, r);
      for (int64_t k = 0; k < kChunk; ++k) pairs[k] &= other;
    } else {
      float* row = exps_at(block, chunk, r);
      std::fill(row, row + kChunk, 0.0f);
    }
  }

  int64_t chunks_of(const Window& w) const { return (end_of(w) - w.first + kChunk - 1) / kChunk; }

  // 3 for part i of the window's columns.
  void sweep_columns(const Window& w, const Block& block, int64_t num_rows, int i, int parts, int me) {
    const Group& group = group_of(w);
    const int64_t stop = std::min(w.last, group.num);
    if (stop <= w.first) return;
    const Range mine = part(stop - w.first, strip_, i, parts);
    float* f = scratch_[me];
    for (int64_t chunk = mine.first / kChunk; chunk * kChunk < mine.last; ++chunk) {
      const int64_t from = std::max<int64_t>(mine.first - chunk * kChunk, 0);
      const int64_t to = std::min<int64_t>(mine.last - chunk * kChunk, kChunk);
      const float* factor = block.reference + chunk * block_rows_;
      const int32_t* row_of = group.row_of + w.first + chunk * kChunk;
      const Exp* e = exps_at(block, chunk, 0);
      if constexpr (!Sums::kRounds) {
        if (a_.d_bias_n != nullptr) {
          for (int64_t r = 0; r < num_rows; ++r) f[r] = block.up[r].d_lse * factor[r];
          tile_.add_column_sums(e, kChunkStride, num_rows, from, to, f, row_of, a_.d_bias_n);
        }
      }
      if (!wants_items_) continue;
      for (int64_t r = 0; r < num_rows; ++r) f[r] = scale_ * block.up[r].d_lse * factor[r];
      Item* scaled = scaled_[me];
      sums_.scale_rows(block.query, padded_, f, num_rows, scaled);
      sums_.add_columns(e, num_rows, from, to, scaled, padded_, a_.D, row_of, a_.d_item_nD, a_.D);
    }
  }

  // The positives' share of part i of the table's gradient, rows in order.
  void add_positives(int i, int parts, int me) {
    const Range mine = part(a_.index->size(), 1, i, parts);
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

  // Of 16-bit exponentials more: a block of them takes less time, and beside a process that takes a core
  // for a slice there must be others to go on with.
  static constexpr int kMostBlocks = Sums::kExpBytes < 4 ? 6 : 4;

  Workspace memory_;
  Steps steps_;
  int64_t num_groups_;  // prepared at a time
  int64_t num_blocks_;  // under way at a time; without columns a thread has one
  int64_t window_, block_rows_, chunks_;
  bool wants_items_, wants_columns_, wants_query_, gradients_;
  const Logits logits_;
  const Sums sums_;
  int64_t strip_, row_unit_;   // rows of a strip; of what sums over rows take, whole strips
  int64_t depth_;              // D in whole units of the logits
  int64_t column_pieces_ = 1;  // of the blocks of a window
  std::vector<Group> groups_;
  std::vector<SortItem*> sorts_;
  std::vector<Packed> packed_;
  std::vector<Block> blocks_;
  std::vector<Window> windows_;
  std::vector<Rows> row_sets_;
  // A thread's: at least a strip of exponentials, a row, a number per row of the block; a panel's rows; what
  // the sums want; [block row, padded] queries with their factors.
  std::vector<float*> scratch_;
  std::vector<Row*> rows_;
  std::vector<typename Sums::Scratch*> scratch_of_;
  std::vector<Item*> scaled_;
  OnlineLse* lse_ = nullptr;   // [B]
  float* d_pos_ = nullptr;     // [B]
  double* d_scale_ = nullptr;  // [B]
  int32_t* pos_place_ = nullptr;
};

}  // namespace

void sampled_softmax_tiles(const SampledSoftmax& a, const Tile& tile) {
  const auto run = [&](const auto& logits, const auto& sums) {
    TilePass pass(a, tile, logits, sums);
    pass.run();
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
