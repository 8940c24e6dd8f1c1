// Each parser takes the whole text or nothing: `5.7` is no whole number, `5x` no number.
#include "log_rows/values.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <string>
#if !defined(__cpp_lib_to_chars)
#include <cstdlib>
#include <locale.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif
#endif

#include "mutant.h"

namespace fastpop {
namespace {

#if !defined(__cpp_lib_to_chars)
// What from_chars reads as a finite double, for C++ libraries that have it of whole numbers alone: that of
// clang before its 20th. Both round to nearest; the decimal point is one whatever the process's language.
bool decimal(const std::string& text, double* value) {
  if (text[0] == '+' || text.find_first_not_of("0123456789+-.eE") != std::string::npos) return false;
  char* stop = nullptr;
#if defined(_WIN32)
  static const _locale_t plain = _create_locale(LC_ALL, "C");
  *value = _strtod_l(text.c_str(), &stop, plain);
#else
  static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
  *value = strtod_l(text.c_str(), &stop, plain);
#endif
  if (stop != text.c_str() + text.size() || !std::isfinite(*value)) return false;
  // below the least number, which from_chars refuses
  return *value != 0 || text.find_first_of("123456789") >= text.find_first_of("eE");
}
#endif

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads `least` to `most` digits.
bool digits(const char*& p, const char* end, int least, int most, int64_t* value) {
  const char* const start = p;
  *value = 0;
  while (p < end && p - start < most && is_digit(*p)) *value = 10 * *value + (*p++ - '0');
  return p - start >= least;
}

// Days since 1970 of a date in the Gregorian calendar.
int64_t days(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t of_era = year - era * 400;
  const int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

int64_t month_length(int64_t year, int64_t month) {
  if (month == 2) return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

// `Z`, `UTC`, `+HH`, `+HHMM`, `+HH:MM` or nothing: seconds east of UTC.
bool zone(const char* p, const char* end, int64_t* seconds) {
  *seconds = 0;
  if (p < end && *p == ' ') ++p;
  const auto left = static_cast<size_t>(end - p);
  if (left == 0 || (left == 1 && (*p == 'Z' || *p == 'z')) || (left == 3 && std::memcmp(p, "UTC", 3) == 0))
    return true;
  if (*p != '+' && *p != '-') return false;
  const int64_t sign = *p++ == '-' ? -1 : 1;
  int64_t hours, minutes = 0;
  if (!digits(p, end, 2, 2, &hours)) return false;
  if (p < end && *p == ':') ++p;
  if (p < end && !digits(p, end, 2, 2, &minutes)) return false;
  *seconds = MUTANT(16, -sign, sign) * (3600 * hours + 60 * minutes);
  return p == end && hours < 24 && minutes < 60;
}

}  // namespace

Text trimmed(Text text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (text.size > 0 && blank(text.data[text.size - 1])) --text.size;
  while (text.size > 0 && blank(*text.data)) ++text.data, --text.size;
  return text;
}

bool whole_number(Text text, int64_t* value) {
  const char* p = text.data;
  const char* const end = p + text.size;
  const bool minus = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) ++p;
  if (p == end) return false;
  uint64_t sum = 0;
  if (end - p <= 18) {
    for (; p < end; ++p) {
      if (!is_digit(*p)) return false;
      sum = 10 * sum + static_cast<uint64_t>(*p - '0');
    }
  } else {
    const auto [stop, error] = std::from_chars(p, end, sum);
    if (error != std::errc() || stop != end) return false;
    if (sum > (uint64_t{1} << 63) - !minus) return false;
  }
  *value = static_cast<int64_t>(minus ? 0 - sum : sum);
  return true;
}

bool real_number(Text text, double* value) {
  const char* p = text.data;
  const char* const end = p + text.size;
  if (p < end && *p == '+' && p + 1 < end && p[1] != '-') ++p;
#if defined(__cpp_lib_to_chars)
  const auto [stop, error] = std::from_chars(p, end, *value);
  return error == std::errc() && stop == end && p < end && std::isfinite(*value);
#else
  return p < end && decimal(std::string(p, end), value);
#endif
}

bool iso_date(Text text, int64_t* nanoseconds) {
  const char* p = text.data;
  const char* const end = p + text.size;
  int64_t year, month, day, hour = 0, minute = 0, second = 0, fraction = 0, east = 0;
  if (!digits(p, end, 4, 4, &year) || p == end || (*p != '-' && *p != '/')) return false;
  const char between = *p++;
  if (!digits(p, end, 1, 2, &month) || p == end || *p++ != between) return false;
  if (!digits(p, end, 1, 2, &day)) return false;
  if (month < 1 || month > 12 || day < 1 || day > month_length(year, month)) return false;
  if (p < end) {
    if (*p != ' ' && *p != 'T') return false;
    ++p;
    if (!digits(p, end, 1, 2, &hour)) return false;
    if (p < end && *p == ':') {
      if (!digits(++p, end, 2, 2, &minute)) return false;
      if (p < end && *p == ':') {
        if (!digits(++p, end, 2, 2, &second)) return false;
        if (p < end && (*p == '.' || *p == ',')) {
          const char* const start = ++p;
          int64_t scale = 100000000;
          for (; p < end && is_digit(*p); ++p, scale /= 10) fraction += scale * (*p - '0');
          if (p == start) return false;
        }
      }
    }
    if (!zone(p, end, &east)) return false;
  }
  if (hour > 23 || minute > 59 || second > 59) return false;
  const int64_t seconds = 86400 * days(year, month, day) + 3600 * hour + 60 * minute + second - east;
  return !__builtin_mul_overflow(seconds, int64_t{1000000000}, nanoseconds) &&
         !__builtin_add_overflow(*nanoseconds, fraction, nanoseconds);
}

Tick tick_of(Text text) {
  Tick tick{kWholeTick, 0};
  if (whole_number(text, &tick.bits)) return tick;
  double real;
  if (real_number(text, &real)) {
    constexpr double kExact = 9007199254740992.0;
    if (real == std::floor(real) && std::fabs(real) < kExact) return {kWholeTick, static_cast<int64_t>(real)};
    tick.kind = kRealTick;
    std::memcpy(&tick.bits, &real, 8);
    return tick;
  }
  if (iso_date(text, &tick.bits)) {
    tick.kind = kDateTick;
    return tick;
  }
  return {text.size == 0 ? kNoTick : kBadTick, 0};
}

}  // namespace fastpop
