// Register tiles that the softmax and row kernels are made of, one source for every processor.
//
// tile.inc is compiled once per path (AVX-512 with and without bfloat16 products, AVX2 + FMA, plain C++)
// into a table of functions; which table runs is decided at run time. A product is always of one form:
// 6 rows of a (one number broadcast at a time) times whole vectors of b, the 6 x `panel` sums in
// registers. Tile registers (AMX) take 16 rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastpop {

enum class Dtype : int { f32 = 0, bf16 = 1, f16 = 2 };

// A matrix as it came: strides count elements.
struct Matrix {
  const void* data;
  int64_t row_stride;
  int64_t col_stride;
  Dtype dtype;
};

constexpr int kTileRows = 6;
constexpr int kMostTileRows = 16;
// Whole tiles of rows and whole vectors of doubles on every path.
constexpr int kGramUnit = 24;
// Columns of logits made at a time: 6 rows of them stay in L1, their packed items in L2.
// A multiple of every path's panel and of kTileRows.
constexpr int kChunk = 576;
// Padded so that rows of a chunk do not fall into the same cache sets.
constexpr int kChunkStride = kChunk + 16;

struct RowUpdate;   // row_update/row_update.h
struct ItemBlock;   // top_items/top_items.h
struct QueryPanel;  // top_items/top_items.h

// Products of bfloat16 pairs. Depths are whole `depth_unit`s; e has the stride of a chunk, in elements.
struct Bf16Tile {
  int rows;        // of a strip
  int row_unit;    // rows that add_columns sums over come in these; those past the last are zero
  int depth_unit;  // numbers of a row come in these
  // Around the use of the functions below, on each thread.
  void (*enter)();
  void (*leave)();
  // One bfloat16 row as it is, zeros from dim to padded.
  void (*fetch)(const Matrix& m, int64_t row, int64_t dim, int64_t padded, uint16_t* out);
  // `panel` rows [panel, stride] -> one panel of pairs [dim / 2, panel].
  void (*pack)(const uint16_t* rows, int64_t stride, int64_t dim, uint32_t* out);
  // Rows [num, stride] -> pairs of rows [num / 2, padded].
  void (*pair_rows)(const uint16_t* rows, int64_t stride, int64_t num, int64_t padded, uint32_t* out);
  // As in Tile, from packed pairs.
  void (*logits)(const uint16_t* q, int64_t stride_q, int64_t dim, const uint32_t* panels, int64_t num_panels,
                 float scale, const float* bias, float* out, int64_t stride_out, float* max_of_row);
  // A strip of e rounded: as rows, and as pairs of rows. Either may be null.
  void (*round_strip)(const float* e, int64_t stride_e, int64_t n, uint16_t* rows, uint32_t* pairs);
  // f[r] * q[r, padded] rounded, in pairs of rows, as add_columns takes them.
  void (*scale_rows)(const float* q, int64_t padded, const float* f, int64_t num_rows, uint32_t* out);
  // As in Tile; items in pairs of rows, e as rows and in pairs of rows.
  void (*add_rows)(const uint16_t* e, int64_t stride_e, int64_t depth, const uint32_t* items, int64_t padded,
                   const float* keep, float* out);
  void (*add_columns)(const uint32_t* e, int64_t stride_e, int64_t num_rows, int64_t first, int64_t last,
                      const uint32_t* q, int64_t padded, int64_t dim, const int32_t* row_of, float* out,
                      int64_t stride_out);
};

struct Tile {
  const char* name;
  int lanes;  // floats in a vector
  int panel;  // columns of a packed panel

  // One row as fp32, zeros from dim to padded.
  void (*fetch)(const Matrix& m, int64_t row, int64_t dim, int64_t padded, float* out);

  // `panel` rows [panel, stride] -> one panel [dim, panel].
  void (*pack)(const float* rows, int64_t stride, int64_t dim, float* out);

  // out[6, panels * panel] = scale * q[6, dim] . panels + bias; the largest of each row into max_6.
  void (*logits)(const float* q, int64_t stride_q, int64_t dim, const float* panels, int64_t num_panels,
                 float scale, const float* bias, float* out, int64_t stride_out, float* max_6);

  // row[n] = e^(row - reference), 0 below 2^-126 and at -inf; returns the sum. n: whole vectors.
  float (*exp_row)(float* row, int64_t n, float reference);

  // counts_2 += how many of n numbers are above the bound, how many equal it. n: whole vectors.
  void (*count_row)(const float* row, int64_t n, float bound, int64_t* counts_2);

  // out[6, padded] = keep[6] * out + e[6, depth] . items[depth, padded].
  void (*add_rows)(const float* e, int64_t stride_e, int64_t depth, const float* items, int64_t padded,
                   const float* keep_6, float* out);

  // The same, row t of the items being table[id[t]]; all rows are whole vectors, `padded` numbers.
  void (*add_table_rows)(const float* e, int64_t stride_e, int64_t depth, const float* table,
                         int64_t row_stride, const int64_t* id, int64_t padded, const float* keep_6,
                         float* out);

  // out[row_of[k], :dim] += sum_r e[r, k] * q[r, :dim] for first <= k < last. e and row_of start at
  // column 0; equal rows stand side by side.
  void (*add_columns)(const float* e, int64_t stride_e, int64_t num_rows, int64_t first, int64_t last,
                      const float* q, int64_t padded, int64_t dim, const int32_t* row_of, float* out,
                      int64_t stride_out);

  // out[row_of[k]] += sum_r e[r, k] * f[r] for first <= k < last.
  void (*add_column_sums)(const float* e, int64_t stride_e, int64_t num_rows, int64_t first, int64_t last,
                          const float* f, const int32_t* row_of, double* out);

  // s = z - shift for n logits, z capped first to cap * tanh(z / cap) unless cap is 0:
  // sums_3 = sum s, sum s^2, sum s * b.
  void (*row_moments)(const float* z, const float* b, int64_t n, float shift, float cap, float* sums_3);

  // out[n] = row - shift.
  void (*widen)(const float* row, const double* shift, int64_t n, double* out);
  // out[n, n] += sum_t w[t] x[t, i] x[t, j] on and above the diagonal (and some below it); n is a
  // multiple of kGramUnit, wx = w * x.
  void (*add_gram)(const double* wx, const double* x, int64_t num_rows, int64_t n, double* out);

  float (*dot)(const float* a, const float* b, int64_t n);
  void (*axpy)(float alpha, const float* x, int64_t n, float* y);  // y += alpha x

  // out[k] = <q, m[ids[k]]>; scratch holds one row.
  void (*gather_dots)(const Matrix& m, const int64_t* ids, int64_t num, const float* q, int64_t dim,
                      float* scratch, float* out);
  // out[:dim] += sum_k p[k] m[ids[k]].
  void (*gather_sum)(const Matrix& m, const int64_t* ids, int64_t num, const float* p, int64_t dim,
                     float* scratch, float* out);

  // Whether no id is smaller than the one before.
  bool (*ascends)(const int64_t* ids, int64_t num);
  // The step of `args` on its ids [first, last) in order, whole runs of equal ids; scratch: 2 rows.
  void (*update_rows)(const RowUpdate& args, int64_t first, int64_t last, float* scratch);
  // Scores the items for the panel's queries and appends what may be among their best.
  void (*scan)(const ItemBlock& block, const QueryPanel& panel);

  const Bf16Tile* bf16;  // null where the path has no such product
  // The same for those who round e and sum over rows by add_columns alone, or null: tile registers.
  const Bf16Tile* wide_bf16;
};

// The functions of each table by name, from which tables are filled: an entry has no place to be in but
// its own, and one that is declared above and not named here does not compile.
// clang-format off
#define FASTPOP_BF16_TILE_FUNCTIONS(F)                                                          \
  F(enter) F(leave) F(fetch) F(pack) F(pair_rows) F(logits) F(round_strip) F(scale_rows)        \
  F(add_rows) F(add_columns)
#define FASTPOP_TILE_FUNCTIONS(F)                                                               \
  F(fetch) F(pack) F(logits) F(exp_row) F(count_row) F(add_rows) F(add_table_rows)              \
  F(add_columns) F(add_column_sums) F(row_moments) F(widen) F(add_gram) F(dot) F(axpy)          \
  F(gather_dots) F(gather_sum) F(ascends) F(update_rows) F(scan)
// clang-format on

#define FASTPOP_SIZE_OF(function) +sizeof(void (*)())
static_assert(sizeof(Bf16Tile) == offsetof(Bf16Tile, enter) FASTPOP_BF16_TILE_FUNCTIONS(FASTPOP_SIZE_OF),
              "a function of Bf16Tile has no name in the list");
static_assert(offsetof(Tile, bf16) == offsetof(Tile, fetch) FASTPOP_TILE_FUNCTIONS(FASTPOP_SIZE_OF),
              "a function of Tile has no name in the list");
#undef FASTPOP_SIZE_OF

// The table of a path by name; nullptr when this machine or this build has no such path.
const Tile* find_tile(const char* name);
// The best path of this machine.
const Tile* best_tile();

const Tile* tile_baseline();
// GCC for Windows keeps vectors of 32 and 64 bytes on the stack at multiples of 16 (its bug 54412), where the
// processor refuses them: there it is the baseline.
#if defined(__x86_64__) && (defined(__clang__) || !defined(_WIN32))
#define FASTPOP_X86_PATHS
const Tile* tile_avx2();
const Tile* tile_avx512();
const Tile* tile_avx512_bf16();
const Tile* tile_avx512_amx();            // once the system has given the tile registers to this process
const Tile* tile_avx512_amx_emulation();  // the same bits without them
#endif

}  // namespace fastpop
