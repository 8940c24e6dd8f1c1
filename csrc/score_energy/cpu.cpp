// Moments of rows in fp64, and per-context sums of scores that are never kept.
//
// row_moments: the rows go in parts, as many whatever the number of threads; a thread owns a part. Per
// block of kBlock rows: 1. the mean of its first 32; 2. the rows minus that in fp64, and a 1, 32 at a
// time, into an outer product in register tiles, the part above the diagonal; 3. the column of the 1
// has the sums, which move the product to the block's own mean: the first rows are among its rows,
// so no more than two digits of 16 can cancel; 4. merged into the part's (weight, mean, scatter) as
// Chan, Golub and LeVeque do. Parts are merged in order. Cost: N R (R + 1) FLOPs in fp64, one read.
//
// score_sums: threads take ranges of contexts as they come and walk the items in chunks that stay in L2.
// Per strip of six contexts: the scores in a register tile, then into three sums each while in L1.
// Cost: 2 C V D FLOPs; memory: packed queries and one chunk a thread.
#include "score_energy/score_energy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "mutant.h"
#include "ranges.h"
#include "team.h"
#include "workspace.h"

namespace fastpop {
namespace {

constexpr int64_t kMostParts = 16;
constexpr int64_t kBlock = 1024;
constexpr int64_t kStep = 32;
// Contexts that are worth packing the items for.
constexpr int64_t kFewContexts = 384;

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
    query_ = memory_.make<float>(round_up(a.C, kTileRows) * padded_ + kTileRows * a.threads * padded_);
    mean_ = memory_.make<double>(a.C);
    shift_ = memory_.make<float>(a.C);
    for (int i = 0; i < a.threads; ++i)
      buffer_.push_back(memory_.make<float>(kChunk * (padded_ + a.D + 2) + kTileRows * kChunkStride));
  }

  // Contexts [first, last), first a whole strip.
  void run(int64_t first, int64_t last, int me) {
    const Range mine{first, last};
    float* items = buffer_[me];
    float* panels = items + kChunk * padded_;
    float* bias = panels + kChunk * a_.D;
    float* b = bias + kChunk;
    float* score = b + kChunk;
    const int64_t end = round_up(mine.last, kTileRows);
    for (int64_t c = mine.first; c < end; ++c) {
      float* q = query_ + c * padded_;
      if (c < mine.last) {
        tile_.fetch(a_.query_CD, c, a_.D, padded_, q);
        a_.square_C[c] = a_.along_C[c] = mean_[c] = 0;
      } else {
        std::fill(q, q + padded_, 0.0f);
      }
    }
    for (int64_t left = 0; left < a_.V; left += kChunk) {
      const int64_t num = std::min<int64_t>(kChunk, a_.V - left);
      const int64_t columns = round_up(num, tile_.panel);
      for (int64_t k = 0; k < columns; ++k) {
        float* row = items + k * padded_;
        if (k < num) {
          tile_.fetch(a_.item_VD, left + k, a_.D, padded_, row);
        } else {
          std::fill(row, row + padded_, 0.0f);
        }
        bias[k] = k < num && a_.bias_V != nullptr ? a_.bias_V[left + k] : 0.0f;
        b[k] = k < num ? a_.b_V[left + k] : 0.0f;
      }
      for (int64_t k = 0; k < columns; k += tile_.panel)
        tile_.pack(items + k * padded_, padded_, a_.D, panels + k * a_.D);
      for (int64_t c = mine.first; c < mine.last; c += kTileRows) {
        float largest[kTileRows];
        tile_.logits(query_ + c * padded_, padded_, a_.D, panels, columns / tile_.panel,
                     static_cast<float>(a_.scale), bias, score, kChunkStride, largest);
        for (int64_t i = 0; i < kTileRows && c + i < mine.last; ++i)
          add(c + i, score + i * kChunkStride, b, num, left);
      }
    }
  }

 private:
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
  std::vector<float*> buffer_;
  float* query_;  // [C, padded]
  double* mean_;  // [C] of the scores so far, minus shift
  float* shift_;  // [C] the mean of the first chunk
};

}  // namespace

void row_moments(const RowMoments& args, const Tile& tile) { Moments(args, tile).run(); }

void score_sums(const ScoreSums& args, const Tile& tile) {
  Sums sums(args, tile);
  in_parts(args.threads, args.C, kTileRows, kFewContexts, args.C,
           [&](int64_t first, int64_t last, int me) { sums.run(first, last, me); });
}

}  // namespace fastpop
