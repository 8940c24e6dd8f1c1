// Everything tile.inc includes, so that a path can include it before it names its target.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "half.h"
#include "mutant.h"
#include "philox.h"
#include "prefetch.h"
#include "row_update/row_update.h"
#include "target.h"
#include "tile.h"
#include "top_items/top_items.h"
