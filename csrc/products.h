// The products of the softmaxes' passes over register tiles, as policies: what numbers they are made of.
//
//   logits  Fp32Logits   rows as they are, widened to fp32
//           Bf16Logits   bfloat16 rows of both sides, in pairs
//   sums    Fp32Sums     exponentials and items in fp32
//           TableSums    the same, of a table's rows where they lie
//           Bf16Sums     both rounded to bfloat16, in pairs of rows
//
// Logits are the same in forward and backward: lse and the recomputed logits must have the same bits, or
// p - 1 of a sure row is the difference of their roundings. Exponentials are rounded for the gradients of
// rows. Those of biases and of the scale are sums that cancel: for them e stays in fp32.
#pragma once

#include <cstdint>

#include "ranges.h"
#include "strip_rows.h"
#include "tile.h"

namespace fastpop {

class Fp32Logits {
 public:
  using Row = float;    // a number of a row as it is packed and multiplied
  using Panel = float;  // a number of packed columns
  static constexpr bool kPairs = false;
  static int64_t packed(int64_t numbers) { return numbers; }  // how many Panels hold them

  explicit Fp32Logits(const Tile& tile) : tile_(tile) {}

  int strip() const { return kTileRows; }  // rows of a strip
  int64_t depth_unit() const { return 1; }
  void enter() const {}
  void leave() const {}
  void fetch(const Matrix& m, int64_t row, int64_t dim, int64_t padded, float* out) const {
    tile_.fetch(m, row, dim, padded, out);
  }
  // One panel of columns.
  void pack(const float* rows, int64_t stride, int64_t depth, float* out) const {
    tile_.pack(rows, stride, depth, out);
  }
  // A strip's logits into e, rows kChunkStride apart, and the largest of each row.
  void make(const float* q, int64_t stride_q, int64_t depth, const float* panels, int64_t columns,
            float scale, const float* bias, float* e, float* largest) const {
    tile_.logits(q, stride_q, depth, panels, columns / tile_.panel, scale, bias, e, kChunkStride, largest);
  }

 private:
  const Tile& tile_;
};

class Bf16Logits {
 public:
  using Row = uint16_t;
  using Panel = uint32_t;
  static constexpr bool kPairs = true;
  static int64_t packed(int64_t numbers) { return numbers / 2; }

  Bf16Logits(const Tile& tile, const Bf16Tile& bf16) : panel_(tile.panel), bf16_(bf16) {}

  int strip() const { return bf16_.rows; }
  int64_t depth_unit() const { return bf16_.depth_unit; }
  void enter() const { bf16_.enter(); }
  void leave() const { bf16_.leave(); }
  void fetch(const Matrix& m, int64_t row, int64_t dim, int64_t padded, uint16_t* out) const {
    bf16_.fetch(m, row, dim, padded, out);
  }
  void pack(const uint16_t* rows, int64_t stride, int64_t depth, uint32_t* out) const {
    bf16_.pack(rows, stride, depth, out);
  }
  void make(const uint16_t* q, int64_t stride_q, int64_t depth, const uint32_t* panels, int64_t columns,
            float scale, const float* bias, float* e, float* largest) const {
    bf16_.logits(q, stride_q, depth, panels, columns / panel_, scale, bias, e, kChunkStride, largest);
  }

 private:
  int panel_;
  const Bf16Tile& bf16_;
};

class Fp32Sums {
 public:
  using Exp = float;      // a kept exponential
  using Item = float;     // a number of an item's row, and of a query's with its factor
  using Scratch = float;  // of a thread
  static constexpr bool kRounds = false;
  static constexpr int64_t kExpBytes = 4;
  static int64_t packed(int64_t numbers) { return numbers; }  // how many Exps or Items hold them

  Fp32Sums(const Tile& tile, int strip) : tile_(tile), strip_(strip) {}

  // Rows that sums over rows come in, whole strips.
  int row_unit() const { return strip_; }
  int64_t scratch_size(int64_t padded) const {
    return strip_ % kTileRows == 0 ? 0 : strip_scratch_size(padded);
  }
  // Where a strip's logits are made, given where its exponentials are kept (or null), and some scratch.
  float* logits_buffer(float* kept, float* scratch) const { return kept != nullptr ? kept : scratch; }

  // Keeps a strip's exponentials e, and adds their products to out[strip, padded], or to null:
  // out = keep[strip] * out + e . items.
  void add_rows(const float* e, int64_t columns, float* /* kept: e lies there */, const float* items,
                int64_t padded, const float* keep, float* scratch, float* out) const {
    if (out != nullptr) add_strip_rows(tile_, strip_, e, columns, items, padded, keep, scratch, out);
  }
  // out = f[r] * q[r, padded], as add_columns takes it.
  void scale_rows(const float* q, int64_t padded, const float* f, int64_t num_rows, float* out) const {
    for (int64_t r = 0; r < num_rows; ++r)
      for (int64_t d = 0; d < padded; ++d) out[r * padded + d] = f[r] * q[r * padded + d];
  }
  // As Tile::add_columns, of kept exponentials.
  void add_columns(const float* kept, int64_t num_rows, int64_t first, int64_t last, const float* q,
                   int64_t padded, int64_t dim, const int32_t* row_of, float* out, int64_t stride_out) const {
    tile_.add_columns(kept, kChunkStride, num_rows, first, last, q, padded, dim, row_of, out, stride_out);
  }

 private:
  const Tile& tile_;
  int strip_;
};

// Sums of fp32 items that are read where they lie: rows of whole vectors.
class TableSums : public Fp32Sums {
 public:
  explicit TableSums(const Tile& tile) : Fp32Sums(tile, kTileRows), tile_(tile) {}

  static bool takes(const Tile& tile, const Matrix& item_VD, int64_t dim) {
    return item_VD.dtype == Dtype::f32 && item_VD.col_stride == 1 && dim % tile.lanes == 0;
  }
  void add_rows_of(const float* e, int64_t num, const Matrix& item_VD, const int64_t* id, int64_t padded,
                   const float* keep, float* out) const {
    tile_.add_table_rows(e, kChunkStride, num, static_cast<const float*>(item_VD.data), item_VD.row_stride,
                         id, padded, keep, out);
  }

 private:
  const Tile& tile_;
};

class Bf16Sums {
 public:
  using Exp = uint32_t;
  using Item = uint32_t;
  using Scratch = uint16_t;
  static constexpr bool kRounds = true;
  static constexpr int64_t kExpBytes = 2;
  static int64_t packed(int64_t numbers) { return numbers / 2; }

  explicit Bf16Sums(const Bf16Tile& bf16) : bf16_(bf16) {}

  int row_unit() const { return bf16_.row_unit; }
  int64_t scratch_size(int64_t) const { return bf16_.rows * int64_t{kChunkStride}; }
  float* logits_buffer(uint32_t*, float* scratch) const { return scratch; }

  void pair_rows(const uint16_t* rows, int64_t num, int64_t padded, uint32_t* out) const {
    bf16_.pair_rows(rows, padded, num, padded, out);
  }
  void add_rows(const float* e, int64_t columns, uint32_t* kept, const uint32_t* items, int64_t padded,
                const float* keep, uint16_t* scratch, float* out) const {
    uint16_t* rows = out != nullptr ? scratch : nullptr;
    bf16_.round_strip(e, kChunkStride, columns, rows, kept);
    if (out != nullptr) bf16_.add_rows(rows, kChunkStride, columns, items, padded, keep, out);
  }
  void scale_rows(const float* q, int64_t padded, const float* f, int64_t num_rows, uint32_t* out) const {
    bf16_.scale_rows(q, padded, f, num_rows, out);
  }
  void add_columns(const uint32_t* kept, int64_t num_rows, int64_t first, int64_t last, const uint32_t* q,
                   int64_t padded, int64_t dim, const int32_t* row_of, float* out, int64_t stride_out) const {
    bf16_.add_columns(kept, kChunkStride, num_rows, first, last, q, padded, dim, row_of, out, stride_out);
  }

 private:
  const Bf16Tile& bf16_;
};

// use(logits, sums) with the products for rows of these types. `cancels`: sums that cancel are wanted.
template <class Use>
void with_products(const Tile& tile, const Matrix& query_BD, const Matrix& item_VD, bool cancels, Use use) {
  const bool both_bf16 = query_BD.dtype == Dtype::bf16 && item_VD.dtype == Dtype::bf16;
  const Bf16Tile* bf16 = tile.wide_bf16 != nullptr ? tile.wide_bf16 : tile.bf16;
  if (!both_bf16 || bf16 == nullptr) {
    use(Fp32Logits(tile), Fp32Sums(tile, kTileRows));
  } else if (cancels) {
    use(Bf16Logits(tile, *bf16), Fp32Sums(tile, bf16->rows));
  } else {
    use(Bf16Logits(tile, *bf16), Bf16Sums(*bf16));
  }
}

}  // namespace fastpop
