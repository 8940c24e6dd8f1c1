// Rows that share negatives, through register tiles.
#pragma once

#include "sampled_softmax/sampled_softmax.h"

namespace fastpop {

void sampled_softmax_tiles(const SampledSoftmax& args, const Tile& tile);

}  // namespace fastpop
