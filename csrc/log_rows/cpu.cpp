// Cuts a block into records and fields; every line of it ends up in exactly one count.
#include "log_rows/log_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>

namespace fastpop {
namespace {

int64_t count_byte(const char* start, const char* stop, char byte) {
  int64_t count = 0;
  for (; start < stop; ++count, ++start) {
    start = static_cast<const char*>(std::memchr(start, byte, static_cast<size_t>(stop - start)));
    if (start == nullptr) break;
  }
  return count;
}

const char* find_byte(const char* start, const char* stop, int byte) {
  const void* found = start < stop ? std::memchr(start, byte, static_cast<size_t>(stop - start)) : nullptr;
  return found == nullptr ? stop : static_cast<const char*>(found);
}

// The quote that closes a field whose text begins at `p`, or `end`.
const char* closing_quote(const char* p, const char* end, int quote, bool* doubled) {
  for (;;) {
    p = find_byte(p, end, quote);
    if (p >= end || p + 1 >= end || p[1] != static_cast<char>(quote)) return p;
    *doubled = true;
    p += 2;
  }
}

bool separator_at(const RowLayout& layout, const char* p) {
  return std::memcmp(p, layout.separator.data(), layout.separator.size()) == 0;
}

double bad_number() { return std::numeric_limits<double>::quiet_NaN(); }

}  // namespace

RowReader::RowReader(std::vector<std::string> null_values) {
  null_values.emplace_back();
  for (int role = 0; role < kRoles; ++role) texts_.emplace_back(null_values);
}

Block RowReader::read(const RowLayout& layout, const char* data, int64_t size, int64_t number) {
  layout_ = layout;
  roles_at_.clear();
  for (int role = 0; role < kRoles; ++role) {
    const int64_t at = layout_.position[role];
    if (at < 0) continue;
    if (static_cast<int64_t>(roles_at_.size()) <= at) roles_at_.resize(at + 1);
    roles_at_[at].push_back(role);
  }
  const char* const end = data + size;
  block_ = Block{};
  batched_ = 0;
  number_ = number;
  line_ = 0;
  scratch_.clear();
  reserve(static_cast<double>(size) * rows_per_byte_);
  if (layout_.shape == Shape::kTable) {
    const bool quotes = layout_.quote >= 0, one = layout_.separator.size() == 1;
    if (quotes)
      one ? read_table<true, true>(data, end) : read_table<true, false>(data, end);
    else
      one ? read_table<false, true>(data, end) : read_table<false, false>(data, end);
  } else {
    read_lines(data, end);
  }
  flush();
  block_.lines = line_;
  rows_per_byte_ = 1.05 * static_cast<double>(block_.rows) / static_cast<double>(size);
  if (!block_.lines_differ) block_.line = {};
  return std::move(block_);
}

// Capacity for about as many rows per byte as the block before had.
void RowReader::reserve(double rows) {
  const auto capacity = static_cast<size_t>(rows) + kBatch;
  block_.user.reserve(capacity);
  block_.item.reserve(capacity);
  block_.line.reserve(capacity);
  if (layout_.position[kBehavior] >= 0) block_.behavior.reserve(capacity);
  if (layout_.position[kTime] >= 0) block_.tick.reserve(capacity);
  if (layout_.position[kTime] >= 0 && !layout_.code_times) block_.tick_kind.reserve(capacity);
  if (layout_.position[kWeight] >= 0) block_.weight.reserve(capacity);
  if (layout_.position[kRating] >= 0) block_.rating.reserve(capacity);
}

void RowReader::line_end(const char* start, const char* at) {
  int64_t& first = at > start && at[-1] == '\r' ? block_.first_crlf : block_.first_lf;
  if (first < 0) first = line_;
  ++line_;
}

template <bool kQuotes, bool kOneByte>
void RowReader::read_table(const char* data, const char* end) {
  const char separator = layout_.separator[0];
  const auto width = static_cast<int64_t>(layout_.separator.size());
  const char quote = static_cast<char>(layout_.quote);
  const auto used = static_cast<int64_t>(roles_at_.size());
  const bool returns = std::memchr(data, '\r', static_cast<size_t>(end - data)) != nullptr;
  const auto at_separator = [&](const char* p) {
    return *p == separator && (kOneByte || separator_at(layout_, p));
  };
  for (const char* p = data; p < end;) {
    const char* const start = p;
    if (*p == '\n' || *p == '\r' || *p == ' ') {  // a line of nothing but spaces is no record
      while (*p == ' ' && separator != ' ') ++p;
      if (*p == '\r' && p[1] == '\n') ++p;
      if (*p == '\n') {
        line_end(start, p++);
        ++block_.blanks;
        block_.lines_differ = true;
        continue;
      }
      p = start;
    }
    Row& row = batch_[batched_];
    const int64_t first_line = row.line = line_;
    int64_t field = 0, kind = 0;
    for (;; ++field) {
      Text text;
      if (kQuotes && *p == quote) {
        bool doubled = false;
        const char* const close = closing_quote(p + 1, end, quote, &doubled);
        const int64_t ends = count_byte(p + 1, close, '\n');
        line_ += ends;
        block_.inside += ends;
        if (close == end) {  // the block's last line end is the field's too
          kind = kOpenQuote;
          block_.inside -= 1;
          p = end - 1;
          --line_;
          break;
        }
        text = doubled ? unquoted(p + 1, close) : Text{p + 1, static_cast<uint32_t>(close - p - 1)};
        p = close + 1;
        if (*p == '\r' && p[1] == '\n') ++p;
        if (*p != '\n' && !at_separator(p)) {
          if (kind == 0) kind = kAfterQuote;
          while (*p != '\n' && !at_separator(p)) ++p;
        }
      } else {
        const char* const begin = p;
        while (*p != '\n' && !at_separator(p)) ++p;
        const char* stop = p;
        if (*p == '\n' && stop > begin && stop[-1] == '\r') --stop;
        text = {begin, static_cast<uint32_t>(stop - begin)};
        if (kQuotes && layout_.quote_all && kind == 0) kind = kUnquoted;
        if (returns && block_.stray_return < 0 && find_byte(begin, stop, '\r') != stop)
          block_.stray_return = line_;
      }
      if (field < used)
        for (const int role : roles_at_[field]) row.field[role] = text;
      if (*p == '\n') break;
      p += kOneByte ? 1 : width;
    }
    if (kind == 0 && field + 1 != layout_.num_fields) kind = kRagged;
    ++block_.records;
    const int64_t last_line = line_;
    line_end(start, p++);
    if (kind != 0) {
      block_.faults.push_back({kind, block_.rows + batched_, first_line, last_line, field + 1});
      block_.lines_differ = true;
    } else if (++batched_ == kBatch) {
      flush();
    }
    if (kQuotes && last_line != first_line) {
      block_.lines_differ = true;
      ++block_.many_lined;
      // read without quotes, its first and last lines would be rows
      const char* const first_end = find_byte(start, end, '\n');
      const char* last = p - 1;
      while (last > start && last[-1] != '\n') --last;
      if (block_.swallow_first < 0 && separators(start, first_end) + 1 == layout_.num_fields &&
          separators(last, p - 1) + 1 == layout_.num_fields) {
        block_.swallow_first = first_line;
        block_.swallow_last = last_line;
      }
    }
  }
}

int64_t RowReader::separators(const char* start, const char* stop) const {
  const auto width = static_cast<int64_t>(layout_.separator.size());
  int64_t count = 0;
  for (; stop - start >= width; ++start) {
    if (!separator_at(layout_, start)) continue;
    ++count;
    start += width - 1;
  }
  return count;
}

Text RowReader::unquoted(const char* start, const char* stop) {
  std::vector<char> text;
  text.reserve(static_cast<size_t>(stop - start + kPadding));
  for (; start < stop; ++start) {
    text.push_back(*start);
    start += *start == static_cast<char>(layout_.quote);
  }
  const auto size = static_cast<uint32_t>(text.size());
  text.resize(text.size() + kPadding);
  scratch_.push_back(std::move(text));
  return {scratch_.back().data(), size};
}

void RowReader::read_lines(const char* data, const char* end) {
  const bool sequence = layout_.shape == Shape::kSequence;
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  block_.lines_differ = true;
  for (const char* p = data; p < end;) {
    const char* const start = p;
    const char* const at = find_byte(p, end, '\n');
    const char* const stop = at > p && at[-1] == '\r' ? at - 1 : at;
    if (block_.stray_return < 0 && find_byte(p, stop, '\r') != stop) block_.stray_return = line_;
    flush();  // a line goes in whole or not at all
    const size_t events = block_.item.size();
    int64_t tokens = 0, kind = 0;
    int32_t user = 0;
    while (p < stop && kind == 0) {
      while (p < stop && blank(*p)) ++p;
      if (p == stop) break;
      const char* const begin = p;
      while (p < stop && !blank(*p)) ++p;
      const Text text{begin, static_cast<uint32_t>(p - begin)};
      const bool names_user = sequence && tokens++ == 0;
      Intern& texts = texts_[names_user ? kUser : kItem];
      const int32_t code =
          texts.code(Intern::key(text), text, number_ << 32 | static_cast<int64_t>(block_.item.size()));
      if (code == kNotUtf8 && block_.not_utf8 < 0) block_.not_utf8 = line_;
      if (code < 0) kind = kNullToken;
      if (names_user)
        user = code;
      else
        block_.item.push_back(code);
    }
    if (kind == 0 && block_.item.size() == events) kind = tokens > 0 ? kNoItems : kEmptyLine;
    ++block_.records;
    if (kind != 0) {
      block_.item.resize(events);
      block_.faults.push_back({kind, static_cast<int64_t>(events), line_, line_, 0});
    }
    block_.user.resize(block_.item.size(), user);
    block_.line.resize(block_.item.size(), static_cast<int32_t>(line_));
    block_.rows = static_cast<int64_t>(block_.item.size());
    line_end(start, at);
    p = at + 1;
  }
}

void RowReader::intern(Role role, std::vector<int32_t>& codes) {
  if (layout_.position[role] < 0) return;
  std::array<Key, kBatch> keys;
  Intern& texts = texts_[role];
  for (int n = 0; n < batched_; ++n) {
    Text& text = batch_[n].field[role];
    text = trimmed(text);
    keys[n] = Intern::key(text);
    texts.prefetch(keys[n]);
  }
  for (int n = 0; n < batched_; ++n) {
    const Text text = batch_[n].field[role];
    const int32_t code = texts.code(keys[n], text, number_ << 32 | (block_.rows + n));
    if (code == kNotUtf8 && block_.not_utf8 < 0) block_.not_utf8 = batch_[n].line;
    codes.push_back(code);
  }
}

void RowReader::flush() {
  if (batched_ == 0) return;
  intern(kUser, block_.user);
  intern(kItem, block_.item);
  intern(kBehavior, block_.behavior);
  if (layout_.position[kTime] >= 0 && layout_.code_times) {
    std::vector<int32_t> codes;
    intern(kTime, codes);
    block_.tick.insert(block_.tick.end(), codes.begin(), codes.end());
  } else if (layout_.position[kTime] >= 0) {
    for (int n = 0; n < batched_; ++n) {
      const Tick tick = tick_of(trimmed(batch_[n].field[kTime]));
      ++block_.tick_kinds[tick.kind];
      if (tick.kind == kWholeTick || tick.kind == kRealTick) {
        double size = static_cast<double>(tick.bits);
        if (tick.kind == kRealTick) std::memcpy(&size, &tick.bits, 8);
        size = std::fabs(size);
        ++block_.tick_sizes[(size >= 1e11) + (size >= 1e14) + (size >= 1e17)];
      }
      block_.tick.push_back(tick.bits);
      block_.tick_kind.push_back(tick.kind);
    }
  }
  for (const auto& [role, numbers, bad] : {std::tuple{kWeight, &block_.weight, &block_.bad_weights},
                                           std::tuple{kRating, &block_.rating, &block_.bad_ratings}}) {
    if (layout_.position[role] < 0) continue;
    for (int n = 0; n < batched_; ++n) {
      double number;
      if (!real_number(trimmed(batch_[n].field[role]), &number) || (role == kWeight && number < 0)) {
        number = bad_number();
        ++*bad;
      }
      numbers->push_back(number);
    }
  }
  for (int n = 0; n < batched_; ++n) block_.line.push_back(static_cast<int32_t>(batch_[n].line));
  block_.rows += batched_;
  batched_ = 0;
  scratch_.clear();
}

int64_t last_record_end(const RowLayout& layout, const char* data, int64_t size) {
  const char* const end = data + size;
  const auto last_line_end = [&](const char* from, const char* to) -> const char* {
    while (to > from && to[-1] != '\n') --to;  // not memrchr: GNU's and the BSDs' alone
    return to == from ? nullptr : to;
  };
  if (layout.shape != Shape::kTable || layout.quote < 0) {
    const char* const stop = last_line_end(data, end);
    return stop == nullptr ? 0 : stop - data;
  }
  const auto width = static_cast<int64_t>(layout.separator.size());
  const char* whole = data;  // where a record begins, all before it being whole
  while (whole < end) {
    // up to the next quote, line ends are ends of records
    const char* const quote = find_byte(whole, end, layout.quote);
    const char* const before = last_line_end(whole, quote);
    if (quote == end) return (before == nullptr ? whole : before) - data;
    if (before != nullptr) whole = before;
    const char* p = whole;
    for (bool in_record = true; in_record;) {
      if (p < end && *p == static_cast<char>(layout.quote)) {
        bool doubled = false;
        p = closing_quote(p + 1, end, layout.quote, &doubled);
        // a quote that the data end with may be the first of two
        if (p >= end - 1) return whole - data;
        ++p;
      }
      while (p < end && *p != '\n' && !(end - p >= width && separator_at(layout, p))) ++p;
      if (p == end) return whole - data;
      in_record = *p != '\n';
      p += in_record ? width : 1;
    }
    whole = p;
  }
  return whole - data;
}

std::vector<std::string> record_fields(const RowLayout& layout, const char* data, int64_t size,
                                       int64_t* end_of_record) {
  const char* const end = data + size;
  std::vector<std::string> fields;
  const char* p = data;
  for (;;) {
    std::string text;
    if (layout.quote >= 0 && p < end && *p == static_cast<char>(layout.quote)) {
      bool doubled = false;
      const char* const close = closing_quote(p + 1, end, layout.quote, &doubled);
      for (const char* q = p + 1; q < close; ++q) {
        text.push_back(*q);
        q += *q == static_cast<char>(layout.quote);
      }
      p = std::min(close + 1, end);
    }
    const auto width = static_cast<int64_t>(layout.separator.size());
    const char* const begin = p;
    while (p < end && *p != '\n' && !(end - p >= width && separator_at(layout, p))) ++p;
    const char* const stop = p > begin && (p == end || *p == '\n') && p[-1] == '\r' ? p - 1 : p;
    text.append(begin, stop);
    fields.push_back(std::move(text));
    if (p >= end || *p == '\n') break;
    p += width;
  }
  *end_of_record = std::min(p + 1, end) - data;
  return fields;
}

}  // namespace fastpop
