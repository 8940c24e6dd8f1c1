// The tiles in plain C++: vectors of four floats, whatever the processor makes of them.
#include "tile_includes.h"
#define FASTPOP_PATH baseline
#include "tile.inc"

namespace fastpop {
const Tile* tile_baseline() { return &baseline::kTile; }
}  // namespace fastpop
