// Sorts the distinct ids once, whoever saw them first.
#include "log_rows/ids.h"

#include <algorithm>
#include <limits>

#include "log_rows/values.h"

namespace fastpop {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

struct Entry {
  uint64_t first, second;  // a number in order, or sixteen bytes in order
  int32_t reader, code;
};

uint64_t bytes_in_order(std::string_view text, size_t from) {
  uint64_t word = 0;
  for (size_t k = 0; k < 8; ++k)
    word = word << 8 | (from + k < text.size() ? static_cast<unsigned char>(text[from + k]) : 0);
  return word;
}

// The number of an id that is one: 7, 007, +7, 7.0.
int64_t number_of(std::string_view text) {
  const size_t point = text.find('.');
  if (point != std::string_view::npos) text = text.substr(0, point);
  int64_t number = 0;
  whole_number({text.data(), static_cast<uint32_t>(text.size())}, &number);
  return number;
}

}  // namespace

IdKind id_kind(std::string_view text) {
  size_t at = !text.empty() && (text[0] == '-' || text[0] == '+');
  const size_t start = at;
  while (at < text.size() && is_digit(text[at])) ++at;
  if (at == start) {
    for (const char* word : {"True", "False", "true", "false", "TRUE", "FALSE"})
      if (text == word) return kWordId;
    return kTextId;
  }
  int64_t number;
  const bool fits = whole_number({text.data(), static_cast<uint32_t>(at)}, &number);
  const bool zero_first = text[start] == '0' && at - start > 1;
  const bool plain = fits && text[0] != '+' && !zero_first && !(text[0] == '-' && number == 0);
  if (at == text.size()) return plain ? kWholeId : fits ? kPaddedId : kTextId;
  bool zeros = true;
  if (text[at] == '.') {
    const size_t point = at++;
    for (; at < text.size() && is_digit(text[at]); ++at) zeros = zeros && text[at] == '0';
    if (at == point + 1) return kTextId;
    // what a float writes: beyond 2^53 it cannot tell whole numbers apart
    const bool exact = fits && number > -(int64_t{1} << 53) && number < int64_t{1} << 53;
    if (at == text.size()) return zeros && exact && !zero_first && text[0] != '+' ? kPointId : kFractionId;
  }
  // an exponent with its sign is how a float is written; `12e5` may be a code
  if ((text[at] == 'e' || text[at] == 'E') && at + 2 < text.size() &&
      (text[at + 1] == '+' || text[at + 1] == '-') &&
      std::all_of(text.begin() + static_cast<int64_t>(at) + 2, text.end(), is_digit))
    return kFractionId;
  return kTextId;
}

IdCounts count_ids(const std::vector<const Intern*>& readers, const std::vector<const uint8_t*>& used,
                   const std::vector<uint8_t*>& kinds) {
  IdCounts found;
  found.place.fill(std::numeric_limits<int64_t>::max());
  for (size_t r = 0; r < readers.size(); ++r) {
    for (int64_t code = 0; code < readers[r]->size(); ++code) {
      const std::string_view text = readers[r]->text(code);
      const IdKind kind = id_kind(text);
      kinds[r][code] = kind;
      if (used[r] != nullptr && !used[r][code]) continue;
      ++found.count[kind];
      if (readers[r]->place(code) < found.place[kind]) {
        found.place[kind] = readers[r]->place(code);
        found.text[kind] = std::string(text);
      }
    }
  }
  return found;
}

DenseIds dense_ids(const std::vector<const Intern*>& readers, const std::vector<const uint8_t*>& used,
                   bool whole) {
  std::vector<Entry> entries;
  DenseIds ids;
  for (size_t r = 0; r < readers.size(); ++r) {
    ids.dense.emplace_back(static_cast<size_t>(readers[r]->size()), -1);
    entries.reserve(entries.size() + static_cast<size_t>(readers[r]->size()));
    for (int64_t code = 0; code < readers[r]->size(); ++code) {
      if (used[r] != nullptr && !used[r][code]) continue;
      const std::string_view text = readers[r]->text(code);
      Entry entry{0, 0, static_cast<int32_t>(r), static_cast<int32_t>(code)};
      if (whole) {
        entry.first = static_cast<uint64_t>(number_of(text)) ^ (uint64_t{1} << 63);
      } else {
        entry.first = bytes_in_order(text, 0);
        entry.second = bytes_in_order(text, 8);
      }
      entries.push_back(entry);
    }
  }
  const auto text_of = [&](const Entry& e) { return readers[e.reader]->text(e.code); };
  std::sort(entries.begin(), entries.end(), [&](const Entry& a, const Entry& b) {
    if (a.first != b.first) return a.first < b.first;
    if (a.second != b.second) return a.second < b.second;
    return !whole && text_of(a) < text_of(b);
  });
  int32_t next = -1;
  for (size_t n = 0; n < entries.size(); ++n) {
    const Entry& entry = entries[n];
    const bool same = n > 0 && entries[n - 1].first == entry.first && entries[n - 1].second == entry.second &&
                      (whole || text_of(entries[n - 1]) == text_of(entry));
    if (!same) {
      ++next;
      if (whole)
        ids.numbers.push_back(static_cast<int64_t>(entry.first ^ (uint64_t{1} << 63)));
      else
        ids.texts.push_back(text_of(entry));
    }
    ids.dense[entry.reader][entry.code] = next;
  }
  return ids;
}

}  // namespace fastpop
