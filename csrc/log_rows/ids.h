// The distinct ids of several readers: what they look like, and their dense index.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "log_rows/log_rows.h"

namespace fastpop {

// Whole: 7. Point: 7.0. Fraction: 7.5, 1e+20. Padded: 007, +7. Word: True, false. Text: others, and
// digits beyond int64.
enum IdKind : uint8_t { kWholeId, kPointId, kFractionId, kPaddedId, kWordId, kTextId, kIdKinds };

IdKind id_kind(std::string_view text);

struct IdCounts {
  std::array<int64_t, kIdKinds> count{};
  std::array<int64_t, kIdKinds> place{};  // of the first one of a kind, in the order of the source
  std::array<std::string, kIdKinds> text;
};

// `used[r]` is null (all are) or one byte for each code of reader r. `kinds[r]` receives them.
IdCounts count_ids(const std::vector<const Intern*>& readers, const std::vector<const uint8_t*>& used,
                   const std::vector<uint8_t*>& kinds);

struct DenseIds {
  std::vector<int64_t> numbers;             // rising, where ids are whole numbers
  std::vector<uint8_t> texts;               // rising by bytes, one behind the other, where they are texts
  std::vector<int64_t> offsets;             // [texts + 1], where each begins
  std::vector<std::vector<int32_t>> dense;  // reader → code → index, -1 for a code not used
};

// The readers forget these texts. While they are sorted there are, beside them, kSortBytes a text.
constexpr int64_t kSortBytes = 28;
DenseIds dense_ids(const std::vector<Intern*>& readers, const std::vector<const uint8_t*>& used, bool whole);

}  // namespace fastpop
