// Moments of rows in fp64, and per-context sums of scores that are never kept.
//
// row_moments: the rows go in parts, as many whatever the number of threads; a thread owns a part. Per
// block of kBlock rows: 1. the mean of its first 32; 2. the rows minus that in fp64, and a 1, 32 at a
// time, into an outer product in register tiles, the part above the diagonal; 3. the column of the 1
// has the sums, which move the product to the block's own mean: the first rows are among its rows,
// so no more than two digits of 16 can cancel; 4. merged into the part's (weight, mean, scatter) as
// Chan, Golub and LeVeque do. Parts are merged in order. Cost: N R (R + 1) FLOPs in fp64, one read.
//
// score_sums: items are packed in windows of a few chunks, past which ranges of contexts go, a chunk at a
// time so that it stays in L2. Per strip of six contexts: the scores in a register tile, then into three
// sums each while in L1. A range's windows follow each other, so a context's sums have one order.
// Cost: 2 C V D FLOPs; memory: packed queries and three windows.
#include "score_energy/score_energy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "fetch_rows.h"
#include "mutant.h"
#include "ranges.h"
#include "steps.h"
#include "workspace.h"

namespace fastpop {
namespace {

constexpr int64_t kMostParts = 16;
constexpr int64_t kBlock = 1024;
constexpr int64_t kStep = 32;

struct Part {
  double weight;
  double* mean;     // [R padded]
  double* scatter;  // [R padded, R padded]
};

class Moments {
 public:
  Moments(const RowMoments& a, const Tile& tile) : a_(a), tile_(tile) {
    width_ = round_up(a.D + a.M + 1, kGramUnit);
    num_parts_ = static_cast<int>(std::clamp<int64_t>(a.N / kBlock, 1, kMostParts));
    parts_.resize(num_parts_);
    for (Part& part : parts_) {
      part.weight = 0;
      part.mean = zeros(width_);
      part.scatter = zeros(width_ * width_);
    }
  }

  void run() {
    const int threads = std::min(num_parts_, a_.threads);
    std::vector<double*> buffers;
    std::vector<float*> rows;
    for (int i = 0; i < threads; ++i) {
      buffers.push_back(memory_.make<double>(2 * kStep * width_ + 2 * width_ + width_ * width_));
      rows.push_back(memory_.make<float>(round_up(a_.D, 16)));
    }
    in_pieces(threads, num_parts_, [&](int64_t i, int me) {
      const Range mine = part(a_.N, kBlock, static_cast<int>(i), num_parts_);
      for (int64_t first = mine.first; first < mine.last; first += kBlock)
        add_block(parts_[i], first, std::min(first + kBlock, mine.last), buffers[me], rows[me]);
    });
    Part total = parts_[0];
    for (int i = 1; i < num_parts_; ++i) join(total, parts_[i].weight, parts_[i].mean, parts_[i].scatter);
    *a_.weight = total.weight;
    const int64_t R = a_.D + a_.M;
    for (int64_t i = 0; i < R; ++i) {
      a_.mean_R[i] = total.mean[i];
      for (int64_t j = i; j < R; ++j)
        a_.scatter_RR[i * R + j] = a_.scatter_RR[j * R + i] = total.scatter[i * width_ + j];
    }
  }

 private:
  double* zeros(int64_t count) {
    double* made = memory_.make<double>(count);
    std::fill(made, made + MUTANT(18, 0, count), 0.0);
    return made;
  }

  // Row n minus shift into out [width], then a 1, then zeros.
  void fetch(int64_t n, const double* shift, float* row, double* out) const {
    if (a_.wide_ND != nullptr) {
      const double* in = a_.wide_ND + n * a_.D;
      for (int64_t d = 0; d < a_.D; ++d) out[d] = in[d] - shift[d];
    } else {
      tile_.fetch(a_.rows_ND, n, a_.D, a_.D, row);
      tile_.widen(row, shift, a_.D, out);
    }
    for (int64_t m = 0; m < a_.M; ++m) out[a_.D + m] = a_.extra_NM[n * a_.M + m] - shift[a_.D + m];
    const int64_t R = a_.D + a_.M;
    out[R] = 1;
    for (int64_t d = R + 1; d < width_; ++d) out[d] = 0;
  }

  double weight_of(int64_t n) const { return a_.weight_N == nullptr ? 1.0 : a_.weight_N[n]; }

  void add_block(Part& part, int64_t first, int64_t last, double* buffer, float* row) {
    double* x = buffer;                  // [kStep, width]
    double* wx = x + kStep * width_;     // [kStep, width]
    double* mean = wx + kStep * width_;  // [width]
    double* shift = mean + width_;       // [width]
    double* scatter = shift + width_;    // [width, width]
    const int64_t R = a_.D + a_.M;
    std::fill(mean, mean + width_, 0.0);
    std::fill(shift, shift + width_, 0.0);
    std::fill(scatter, scatter + width_ * width_, 0.0);
    const int64_t few = std::min(kStep, last - first);
    for (int64_t n = first; n < first + few; ++n) {
      fetch(n, mean, row, x);  // minus the zeros of a mean that is not there yet
      for (int64_t d = 0; d < R; ++d) shift[d] += x[d] / double(few);
    }
    for (int64_t n = first; n < last; n += kStep) {
      const int64_t num = std::min(kStep, last - n);
      for (int64_t t = 0; t < num; ++t) {
        fetch(n + t, shift, row, x + t * width_);
        if (a_.weight_N == nullptr) continue;
        const double w = weight_of(n + t);
        for (int64_t d = 0; d < width_; ++d) wx[t * width_ + d] = w * x[t * width_ + d];
      }
      tile_.add_gram(a_.weight_N == nullptr ? x : wx, x, num, width_, scatter);
    }
    const double weight = scatter[R * width_ + R];
    if (weight == 0) return;
    for (int64_t i = 0; i < R; ++i) {
      const double sum = scatter[i * width_ + R] / weight;
      for (int64_t j = i; j < R; ++j) scatter[i * width_ + j] -= sum * scatter[j * width_ + R];
      mean[i] = shift[i] + sum;
    }
    join(part, weight, mean, scatter);
  }

  // Rounding of a mean enters the scatter squared: what is left of the block's own is nothing.
  void join(Part& into, double weight, const double* mean, const double* scatter) const {
    if (weight == 0) return;
    const double total = into.weight + weight;
    const double between = into.weight * weight / total;
    for (int64_t i = 0; i < width_; ++i) {
      const double step = (mean[i] - into.mean[i]) * between;
      for (int64_t j = i; j < width_; ++j)
        into.scatter[i * width_ + j] += scatter[i * width_ + j] + step * (mean[j] - into.mean[j]);
    }
    for (int64_t i = 0; i < width_; ++i) into.mean[i] += (mean[i] - into.mean[i]) * (weight / total);
    into.weight = total;
  }

  const RowMoments& a_;
  const Tile& tile_;
  int64_t width_;
  int num_parts_;
  Workspace memory_;
  std::vector<Part> parts_;
};

class Sums {
 public:
  Sums(const ScoreSums& a, const Tile& tile) : a_(a), tile_(tile), padded_(round_up(a.D, tile.lanes)) {
    query_ = memory_.make<float>(round_up(a.C, kTileRows) * padded_);
    mean_ = memory_.make<double>(a.C);
    shift_ = memory_.make<float>(a.C);
    for (int i = 0; i < a.threads; ++i) {
      row_.push_back(memory_.make<float>(tile.panel * padded_));
      score_.push_back(memory_.make<float>(kTileRows * kChunkStride));
    }
    for (int i = 0; i < (a.threads == 1 ? 1 : kMostWindows); ++i)
      windows_.push_back(
          {memory_.make<float>(kWindow * a.D), memory_.make<float>(kWindow), memory_.make<float>(kWindow)});
  }

  void run() {
    const int threads = a_.threads;
    const int64_t strips = (a_.C + kTileRows - 1) / kTileRows;
    const int64_t parts = std::min<int64_t>({4 * threads, strips, Steps::kMostFollowing});
    Steps steps(2 * kMostWindows + 2);
    const int enter = steps.add(kEnter, 0, parts, {});
    std::vector<int> left(windows_.size(), -1);  // the step that has done with a window
    int before = enter;
    for (int64_t w = 0; w * kWindow < a_.V; ++w) {
      int& done = left[w % static_cast<int64_t>(left.size())];
      const int pack = steps.add(kPack, w, 2 * threads, {done});
      before = done = steps.add(kScores, w, parts, {pack, -1, before});
    }
    steps.run(threads, [&](const Steps::Piece& piece, int me) { work(piece, me); });
  }

 private:
  // Items that are packed together, windows that are at a time.
  static constexpr int64_t kWindow = 4 * kChunk;
  static constexpr int kMostWindows = 3;

  enum Kind : int { kEnter, kPack, kScores };

  struct Window {
    float* panels;  // [item / panel][D][panel]
    float* bias;    // [item]
    float* b;       // [item]
  };

  void work(const Steps::Piece& piece, int me) {
    const auto [kind, what, number, of] = piece;
    const int i = static_cast<int>(number), parts = static_cast<int>(of);
    const Window& window = windows_[what % static_cast<int64_t>(windows_.size())];
    const int64_t left = what * kWindow, num = std::min(kWindow, a_.V - left);
    if (kind == kEnter) return enter(part(round_up(a_.C, kTileRows), kTileRows, i, parts));
    if (kind == kPack) return pack(window, left, num, part(num, tile_.panel, i, parts), me);
    const Range mine = part(a_.C, kTileRows, i, parts);
    for (int64_t first = 0; first < num; first += kChunk)
      scores(window, left, first, std::min<int64_t>(kChunk, num - first), mine, score_[me]);
  }

  void enter(const Range& mine) {
    for (int64_t c = mine.first; c < mine.last; ++c) {
      fetch_or_clear(tile_, a_.query_CD, c < a_.C ? c : -1, a_.D, padded_, query_ + c * padded_);
      if (c < a_.C) a_.square_C[c] = a_.along_C[c] = mean_[c] = 0;
    }
  }

  // Items `mine` of the window whose first is item `left`.
  void pack(const Window& window, int64_t left, int64_t num, const Range& mine, int me) {
    for (int64_t k = mine.first; k < mine.last; k += tile_.panel) {
      for (int64_t j = k; j < k + tile_.panel; ++j) {
        fetch_or_clear(tile_, a_.item_VD, j < num ? left + j : -1, a_.D, padded_,
                       row_[me] + (j - k) * padded_);
        window.bias[j] = j < num && a_.bias_V != nullptr ? a_.bias_V[left + j] : 0.0f;
        window.b[j] = j < num ? a_.b_V[left + j] : 0.0f;
      }
      tile_.pack(row_[me], padded_, a_.D, window.panels + k * a_.D);
    }
  }

  // Contexts `mine` against items [first, first + num) of the window.
  void scores(const Window& window, int64_t left, int64_t first, int64_t num, const Range& mine,
              float* score) {
    const int64_t panels = (num + tile_.panel - 1) / tile_.panel;
    for (int64_t c = mine.first; c < mine.last; c += kTileRows) {
      float largest[kTileRows];
      tile_.logits(query_ + c * padded_, padded_, a_.D, window.panels + first * a_.D, panels,
                   static_cast<float>(a_.scale), window.bias + first, score, kChunkStride, largest);
      for (int64_t i = 0; i < kTileRows && c + i < mine.last; ++i)
        add(c + i, score + i * kChunkStride, window.b + first, num, left + first);
    }
  }

  // b sums to zero over the catalogue, so the shift leaves no trace in sum s * b.
  void add(int64_t c, const float* score, const float* b, int64_t num, int64_t seen) {
    float sums[3];
    const auto cap = static_cast<float>(a_.cap);
    if (seen == 0) {
      tile_.row_moments(score, b, num, 0.0f, cap, sums);
      shift_[c] = sums[0] / static_cast<float>(num);
    }
    tile_.row_moments(score, b, num, shift_[c], cap, sums);
    const double mean = sums[0] / double(num);
    const double step = mean - mean_[c];
    const double before = static_cast<double>(seen), after = before + num;
    a_.square_C[c] += sums[1] - mean * sums[0] + step * step * (before * num / after);
    mean_[c] += step * (num / after);
    a_.along_C[c] += sums[2];
  }

  const ScoreSums& a_;
  const Tile& tile_;
  int64_t padded_;
  Workspace memory_;
  std::vector<float*> row_;    // a thread's, [panel, padded]
  std::vector<float*> score_;  // a thread's, [6, kChunkStride]
  std::vector<Window> windows_;
  float* query_;  // [C, padded]
  double* mean_;  // [C] of the scores so far, minus shift
  float* shift_;  // [C] the mean of the first chunk
};

}  // namespace

void row_moments(const RowMoments& args, const Tile& tile) { Moments(args, tile).run(); }

void score_sums(const ScoreSums& args, const Tile& tile) {
  Sums sums(args, tile);
  sums.run();
}

}  // namespace fastpop
