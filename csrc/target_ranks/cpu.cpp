// Counts of the items that score above and level with each target, and each row's log-sum-exp, in one
// pass over the catalogue; scores live in L1, one strip at a time.
//
// Rows go in blocks.
// 1. Queries, scaled, and the scores of their targets.
// 2. Items in chunks that stay in L2 while the block's rows go past: scores of a strip of six rows in a
//    register tile; each row's are compared with its targets' scores, and then their exponentials join
//    the row's log-sum-exp in the chunk's part of the catalogue (item_parts.h).
// 3. The threads' counts are added and the excluded items' taken off again.
// A score is the same sum in the same order wherever its column lies, and in top_items (1 and 3 make
// them by the same tile): an item with a target's very row and bias is level with it, bit for bit.
// Counts are integers and sums merge in order of parts, so bits do not depend on the threads.
// Cost: 2 B V D FLOPs, B V exponentials, two comparisons a target and item. Memory: the block's rows
// (8 MiB at most), a sum of each in each part, and, a thread, a chunk and two counts a target of the block.
#include "target_ranks/target_ranks.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "fetch_rows.h"
#include "item_parts.h"
#include "mutant.h"
#include "online_lse.h"
#include "ranges.h"
#include "steps.h"
#include "workspace.h"

namespace fastpop {
namespace {

constexpr int64_t kRowBytes = int64_t{8} << 20;
// Of a block of rows, unless one row alone has more.
constexpr int64_t kMostTargets = int64_t{1} << 17;

// What one thread works with.
struct Own {
  float* items;     // [kChunk, padded]
  float* panels;    // [kChunk / panel][D][panel]
  float* bias;      // [kChunk]
  float* score;     // [6, kChunkStride]
  int64_t* counts;  // [block's targets, 2] greater, equal
  int64_t block;    // that the counts are of, -1: of none yet
  std::vector<int64_t> excluded;
  std::vector<float> excluded_score;
};

class RankPass {
 public:
  RankPass(const TargetRanks& a, const Tile& tile)
      : a_(a),
        tile_(tile),
        items_(a.V, tile.panel),
        padded_(round_up(std::max<int64_t>(a.D, 1), tile.lanes)),
        own_(a.threads) {
    const int64_t fit = kRowBytes / (4 * padded_) / kTileRows * kTileRows;
    rows_ = std::min(round_up(a.B, kTileRows), std::max<int64_t>(fit, kTileRows));
    query_ = memory_.make<float>(rows_ * padded_);
    int64_t most = 0;
    for (int64_t first = 0; first < a.B; first = block_end(first)) {
      blocks_.push_back({first, block_end(first)});
      most = std::max(most, a.target_offsets[block_end(first)] - a.target_offsets[first]);
    }
    for (Own& own : own_) {
      own.items = memory_.make<float>(kChunk * padded_);
      own.panels = memory_.make<float>(kChunk * a.D);
      own.bias = memory_.make<float>(kChunk);
      own.score = memory_.make<float>(kTileRows * kChunkStride);
      own.counts = memory_.make<int64_t>(2 * most);
      own.block = -1;
    }
    for (int p = 0; p < items_.num(); ++p) lse_.push_back(memory_.make<OnlineLse>(rows_));
  }

  void run() {
    const int pieces = a_.threads == 1 ? 1 : 4 * a_.threads;
    Steps steps(static_cast<int>(items_.num_chunks()) + 2);
    for (int64_t block = 0; block < static_cast<int64_t>(blocks_.size()); ++block) {
      steps.gate(kEnter, block, pieces);
      items_.add_to(steps, kChunks, block * items_.num_chunks());
      steps.gate(kLeave, block, pieces);
    }
    steps.run(a_.threads, [&](const Steps::Piece& piece, int me) { work(piece, me); });
  }

 private:
  enum Kind : int { kEnter, kChunks, kLeave };

  void work(const Steps::Piece& piece, int me) {
    const auto [kind, what, number, of] = piece;
    const int i = static_cast<int>(number), parts = static_cast<int>(of);
    const int64_t block = kind == kChunks ? what / items_.num_chunks() : what;
    const auto [first, last] = blocks_[block];
    if (kind == kEnter) return enter_rows(first, last, i, parts, me);
    if (kind == kLeave) return leave_rows(block, i, parts, me);
    Own& own = own_[me];
    if (own.block != block) {
      own.block = block;
      std::fill(own.counts, own.counts + 2 * (a_.target_offsets[last] - a_.target_offsets[first]), 0);
    }
    const int64_t j = what % items_.num_chunks();
    if (j == 0) std::fill(lse_[i], lse_[i] + (last - first), OnlineLse{});
    const Range chunk = items_.chunk(i, j);
    if (chunk.first < chunk.last) one_chunk(own, lse_[i], chunk.first, chunk.last - chunk.first, first, last);
  }

  int64_t block_end(int64_t first) const {
    const int64_t last = std::min(first + rows_, a_.B);
    const int64_t* offsets = a_.target_offsets;
    const int64_t fits =
        std::upper_bound(offsets + first, offsets + last + 1, offsets[first] + kMostTargets) - offsets;
    return std::max(first + 1, std::min(last, fits - 1));
  }

  float bias_of(int64_t id) const { return a_.bias_V == nullptr ? 0.0f : a_.bias_V[id]; }

  // Items id_of(0), ..., id_of(num - 1), num <= kChunk, as columns; -inf past the last.
  template <class IdOf>
  int64_t pack(Own& own, int64_t num, IdOf id_of) const {
    const int64_t columns = round_up(num, tile_.panel);
    for (int64_t k = 0; k < columns; ++k) {
      own.bias[k] = k < num ? bias_of(id_of(k)) : -HUGE_VALF;
      // A removed item's row may hold anything.
      const int64_t id = own.bias[k] == -HUGE_VALF ? -1 : id_of(k);
      fetch_or_clear(tile_, a_.item_VD, id, a_.D, padded_, own.items + k * padded_);
    }
    for (int64_t k = 0; k < columns; k += tile_.panel)
      tile_.pack(own.items + k * padded_, padded_, a_.D, own.panels + k * a_.D);
    return columns;
  }

  // Scores of the packed columns for the rows at q, `stride` apart, into own.score.
  void scores(Own& own, const float* q, int64_t stride, int64_t columns, float* largest) const {
    tile_.logits(q, stride, a_.D, own.panels, columns / tile_.panel, 1.0f, own.bias, own.score, kChunkStride,
                 largest);
  }

  // out[n] = score of ids[n] for block row r.
  void scores_of_ids(Own& own, int64_t r, const int64_t* ids, int64_t num, float* out) const {
    for (int64_t first = 0; first < num; first += kChunk) {
      const int64_t some = std::min<int64_t>(kChunk, num - first);
      const int64_t columns = pack(own, some, [&](int64_t k) { return ids[first + k]; });
      float largest[kTileRows];
      scores(own, query_ + r * padded_, 0, columns, largest);  // six times the same row
      std::copy(own.score, own.score + some, out + first);
    }
  }

  void enter_rows(int64_t first, int64_t last, int i, int parts, int me) {
    Own& own = own_[me];
    const Range mine = part(round_up(last - first, kTileRows), kTileRows, i, parts);
    const float scale = static_cast<float>(a_.scale);
    for (int64_t r = mine.first; r < mine.last; ++r) {
      const int64_t b = first + r;
      float* q = query_ + r * padded_;
      fetch_or_clear(tile_, a_.query_BD, b < last ? b : -1, a_.D, padded_, q);
      for (int64_t d = 0; d < a_.D; ++d) q[d] *= scale;
      if (b >= last) continue;
      const int64_t from = a_.target_offsets[b], num = a_.target_offsets[b + 1] - from;
      if (a_.own_M != nullptr)
        std::copy(a_.own_M + from, a_.own_M + from + num, a_.score_M + from);
      else
        scores_of_ids(own, r, a_.target_item + from, num, a_.score_M + from);
    }
  }

  void one_chunk(Own& own, OnlineLse* lse_of, int64_t left, int64_t num, int64_t first, int64_t last) {
    const int64_t columns = pack(own, num, [&](int64_t k) { return left + k; });
    for (int64_t b = first; b < last; b += kTileRows) {
      float largest[kTileRows];
      scores(own, query_ + (b - first) * padded_, padded_, columns, largest);
      for (int i = 0; i < kTileRows && b + i < last; ++i) {
        float* row = own.score + i * kChunkStride;
        for (int64_t m = a_.target_offsets[b + i]; m < a_.target_offsets[b + i + 1]; ++m) {
          int64_t* counts = own.counts + 2 * (m - a_.target_offsets[first]);
          tile_.count_row(row, columns, a_.score_M[m], counts);
          // Columns that are no items score -inf.
          if (a_.score_M[m] == -HUGE_VALF) counts[1] -= columns - num;
        }
        OnlineLse& lse = lse_of[b - first + i];
        lse.sum += tile_.exp_row(row, columns, lse.raise(largest[i]));
      }
    }
  }

  void leave_rows(int64_t block, int i, int parts, int me) {
    Own& own = own_[me];
    const auto [first, last] = blocks_[block];
    const Range mine = part(last - first, 1, i, parts);
    for (int64_t r = mine.first; r < mine.last; ++r) {
      const int64_t b = first + r;
      double lse = -HUGE_VAL;
      for (const OnlineLse* one : lse_) lse = log_add(lse, one[r].log());
      a_.lse_B[b] = static_cast<float>(lse);
      fetch_excluded(own, b, r);
      for (int64_t m = a_.target_offsets[b]; m < a_.target_offsets[b + 1]; ++m) {
        int64_t greater = 0, equal = 0;
        for (const Own& one : own_) {
          if (one.block != block) continue;
          greater += one.counts[2 * (m - a_.target_offsets[first])];
          equal += one.counts[2 * (m - a_.target_offsets[first]) + 1];
        }
        const float score = a_.score_M[m];
        for (const float other : own.excluded_score) {
          greater -= MUTANT(13, 0, other > score);
          equal -= other == score;
        }
        const auto& ids = own.excluded;
        const int64_t id = a_.target_item[m];  // -1: among the items of another process
        const bool is_counted = id >= 0 && !std::binary_search(ids.begin(), ids.end(), id);
        a_.greater_M[m] = greater;
        a_.equal_M[m] = is_counted ? equal - 1 : equal;
      }
    }
  }

  // What row b must not count, each id once, and their scores.
  void fetch_excluded(Own& own, int64_t b, int64_t r) const {
    own.excluded.clear();
    const bool has_targets = a_.target_offsets[b] < a_.target_offsets[b + 1];
    if (a_.exclude_offsets != nullptr && has_targets)
      own.excluded.assign(a_.exclude_item + a_.exclude_offsets[b],
                          a_.exclude_item + a_.exclude_offsets[b + 1]);
    std::sort(own.excluded.begin(), own.excluded.end());
    own.excluded.erase(std::unique(own.excluded.begin(), own.excluded.end()), own.excluded.end());
    own.excluded_score.resize(own.excluded.size());
    scores_of_ids(own, r, own.excluded.data(), static_cast<int64_t>(own.excluded.size()),
                  own.excluded_score.data());
  }

  const TargetRanks& a_;
  const Tile& tile_;
  const ItemParts items_;
  int64_t padded_, rows_;
  Workspace memory_;
  std::vector<Range> blocks_;  // of rows
  std::vector<Own> own_;
  std::vector<OnlineLse*> lse_;  // a part's, [rows]
  float* query_;                 // [rows, padded], scale within
};

}  // namespace

void target_ranks_cpu(const TargetRanks& args, const Tile& tile) {
  if (args.B == 0) return;
  RankPass pass(args, tile);
  pass.run();
}

}  // namespace fastpop
