// Numbers and dates of a log's fields.
#pragma once

#include <cstdint>

#include "log_rows/intern.h"

namespace fastpop {

enum TickKind : uint8_t { kNoTick, kWholeTick, kRealTick, kDateTick, kBadTick, kTickKinds };

struct Tick {
  TickKind kind;
  int64_t bits;  // whole number; the bits of a double; nanoseconds since 1970
};

Text trimmed(Text text);                       // without spaces and tabs around it
bool whole_number(Text text, int64_t* value);  // [+-]digits that fit
bool real_number(Text text, double* value);    // any finite decimal number
bool iso_date(Text text, int64_t* nanoseconds);
Tick tick_of(Text text);

}  // namespace fastpop
