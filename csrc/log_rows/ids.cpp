// Sorts the distinct ids once, whoever saw them first.
#include "log_rows/ids.h"

#include <algorithm>
#include <limits>

#include "log_rows/values.h"

namespace fastpop {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

struct Number {
  int64_t value;
  int32_t reader, code;
};

struct Word {
  uint64_t first, second;  // sixteen bytes in order
  uint32_t slot;           // a reader has fewer than 2^31 codes, so fewer than 2^32 slots
  int32_t reader;
};
static_assert(sizeof(Word) + sizeof(int32_t) == kSortBytes);

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

// fn(reader, code, text, slot) of every text that is used.
template <typename Fn>
void each_used(const std::vector<Intern*>& readers, const std::vector<const uint8_t*>& used, const Fn& fn) {
  for (size_t r = 0; r < readers.size(); ++r)
    readers[r]->each([&](int32_t code, std::string_view text, int64_t, uint64_t slot) {
      if (used[r] == nullptr || used[r][code]) fn(static_cast<int32_t>(r), code, text, slot);
    });
}

void forget(const std::vector<Intern*>& readers) {
  for (Intern* const reader : readers) reader->clear();
}

void sort_numbers(const std::vector<Intern*>& readers, const std::vector<const uint8_t*>& used, size_t total,
                  DenseIds* ids) {
  std::vector<Number> entries;
  entries.reserve(total);
  each_used(readers, used, [&](int32_t reader, int32_t code, std::string_view text, uint64_t) {
    entries.push_back({number_of(text), reader, code});
  });
  forget(readers);
  std::sort(entries.begin(), entries.end(),
            [](const Number& a, const Number& b) { return a.value < b.value; });
  const auto is_new = [&](size_t n) { return n == 0 || entries[n - 1].value != entries[n].value; };
  size_t distinct = 0;
  for (size_t n = 0; n < entries.size(); ++n) distinct += is_new(n);
  ids->numbers.reserve(distinct);
  for (size_t n = 0; n < entries.size(); ++n) {
    if (is_new(n)) ids->numbers.push_back(entries[n].value);
    ids->dense[entries[n].reader][entries[n].code] = static_cast<int32_t>(ids->numbers.size()) - 1;
  }
}

void sort_words(const std::vector<Intern*>& readers, const std::vector<const uint8_t*>& used, size_t total,
                DenseIds* ids) {
  std::vector<Word> entries;
  entries.reserve(total);
  each_used(readers, used, [&](int32_t reader, int32_t, std::string_view text, uint64_t slot) {
    entries.push_back(
        {bytes_in_order(text, 0), bytes_in_order(text, 8), static_cast<uint32_t>(slot), reader});
  });
  const auto text_of = [&](const Word& e) { return readers[e.reader]->text(e.slot); };
  std::sort(entries.begin(), entries.end(), [&](const Word& a, const Word& b) {
    if (a.first != b.first) return a.first < b.first;
    if (a.second != b.second) return a.second < b.second;
    return text_of(a) < text_of(b);
  });
  const auto is_new = [&](size_t n) {
    return n == 0 || entries[n - 1].first != entries[n].first || entries[n - 1].second != entries[n].second ||
           text_of(entries[n - 1]) != text_of(entries[n]);
  };
  size_t distinct = 0, bytes = 0;
  for (size_t n = 0; n < entries.size(); ++n)
    if (is_new(n)) ++distinct, bytes += text_of(entries[n]).size();
  ids->offsets.reserve(distinct + 1);
  ids->offsets.push_back(0);
  ids->texts.reserve(bytes);
  for (size_t n = 0; n < entries.size(); ++n) {
    if (is_new(n)) {
      const std::string_view text = text_of(entries[n]);
      ids->texts.insert(ids->texts.end(), text.begin(), text.end());
      ids->offsets.push_back(static_cast<int64_t>(ids->texts.size()));
    }
    const int32_t code = readers[entries[n].reader]->code_of(entries[n].slot);
    ids->dense[entries[n].reader][code] = static_cast<int32_t>(ids->offsets.size()) - 2;
  }
  forget(readers);
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
    readers[r]->each([&](int32_t code, std::string_view text, int64_t place, uint64_t) {
      const IdKind kind = id_kind(text);
      kinds[r][code] = kind;
      if (used[r] != nullptr && !used[r][code]) return;
      ++found.count[kind];
      if (place < found.place[kind]) {
        found.place[kind] = place;
        found.text[kind] = std::string(text);
      }
    });
  }
  return found;
}

DenseIds dense_ids(const std::vector<Intern*>& readers, const std::vector<const uint8_t*>& used, bool whole) {
  DenseIds ids;
  size_t total = 0;
  for (const Intern* const reader : readers) {
    ids.dense.emplace_back(static_cast<size_t>(reader->size()), -1);
    total += static_cast<size_t>(reader->size());
  }
  if (whole)
    sort_numbers(readers, used, total, &ids);
  else
    sort_words(readers, used, total, &ids);
  return ids;
}

}  // namespace fastpop
