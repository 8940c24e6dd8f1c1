// Sampled softmax on the CPU: rows that share negatives go through tiles, few rows are gathered for.
#include "sampled_softmax/sampled_softmax.h"

#include <algorithm>

#include "sampled_softmax/gather_pass.h"
#include "sampled_softmax/tile_pass.h"

namespace fastpop {
namespace {

// Rows that share negatives and are fewer than this are not worth packing for.
constexpr int64_t kFewRows = 8;
// Bytes of packed items, and of six rows of exponentials, up to which one pass gives the gradients too.
constexpr int64_t kFusedBytes = int64_t{32} << 20;

bool few_rows(int64_t num_rows, int64_t group_size) { return std::min(num_rows, group_size) < kFewRows; }

void gather(const SampledSoftmax& args, const Tile& tile) {
  GatherPass pass(args, tile, args.threads);
  pass.run();
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
    gather(args, tile);
  } else {
    sampled_softmax_tiles(args, tile);
  }
}

}  // namespace fastpop
