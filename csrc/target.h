// Functions for a processor that the other sources are not compiled for: all from FASTPOP_TARGET("avx2,...")
// on, lambdas and templates too, to FASTPOP_TARGET_END at the end of the file. One spelling for GCC and
// clang.
#pragma once

#define FASTPOP_PRAGMA(words) _Pragma(#words)
#if defined(__clang__)
#define FASTPOP_TARGET(names) \
  FASTPOP_PRAGMA(clang attribute push(__attribute__((target(names))), apply_to = function))
#define FASTPOP_TARGET_END FASTPOP_PRAGMA(clang attribute pop)
// A function that no caller's code is moved into; clang makes no copies for a caller's arguments.
#define FASTPOP_NO_INLINE __attribute__((noinline))
#else
// GCC 12 calls its own intrinsics' don't-care operands uninitialized.
#define FASTPOP_TARGET(names)                                    \
  FASTPOP_PRAGMA(GCC diagnostic ignored "-Wuninitialized")       \
  FASTPOP_PRAGMA(GCC diagnostic ignored "-Wmaybe-uninitialized") \
  FASTPOP_PRAGMA(GCC target(names))
#define FASTPOP_TARGET_END  // not pop_options: templates are compiled when the file has ended
#define FASTPOP_NO_INLINE __attribute__((noinline, noclone))
#endif
