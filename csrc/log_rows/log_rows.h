// A block of whole records of a text log → columns of numbers. See kernels/log_rows.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "log_rows/intern.h"
#include "log_rows/values.h"

namespace fastpop {

enum Role { kUser, kItem, kTime, kWeight, kBehavior, kRating, kRoles };
enum class Shape { kTable, kSequence, kSessions };
enum FaultKind : int64_t {
  kRagged = 1,
  kAfterQuote,
  kOpenQuote,
  kUnquoted,
  kEmptyLine,
  kNoItems,
  kNullToken
};

struct RowLayout {
  Shape shape = Shape::kTable;
  std::string separator;    // 1 to 4 bytes
  int quote = -1;           // a byte, or -1: quotes are data
  bool quote_all = false;   // every field must stand in quotes
  bool code_times = false;  // times are numbered texts, for a format of the caller's
  int64_t num_fields = 0;
  std::array<int64_t, kRoles> position{-1, -1, -1, -1, -1, -1};
};

struct Fault {
  int64_t kind;
  int64_t row;         // rows of the block before it
  int64_t first_line;  // of the block, from 0
  int64_t last_line;
  int64_t count;  // fields that were there
};

struct Block {
  std::vector<int32_t> user, item, behavior, line;
  std::vector<int64_t> tick;
  std::vector<uint8_t> tick_kind;
  std::vector<double> weight, rating;  // NaN: bad
  std::vector<Fault> faults;
  int64_t rows = 0;
  int64_t lines = 0;   // line ends, those inside of quotes included
  int64_t inside = 0;  // line ends inside of quotes
  int64_t blanks = 0;
  int64_t records = 0;     // rows, or lines of a sequence file, faults included
  int64_t many_lined = 0;  // records that span lines
  int64_t bad_weights = 0, bad_ratings = 0;
  int64_t not_utf8 = -1;  // line of the first field of a role that is no UTF-8
  int64_t stray_return = -1, first_lf = -1, first_crlf = -1;
  int64_t swallow_first = -1, swallow_last = -1;  // a field that looks like it swallowed rows
  bool lines_differ = false;                      // row n is not line n: `line` says where rows stand
  std::array<int64_t, kTickKinds> tick_kinds{};
  std::array<int64_t, 4> tick_sizes{};  // |whole or real time| below 1e11, 1e14, 1e17, beyond
};

class RowReader {
 public:
  // Texts that stand for a missing value; the empty one does too.
  explicit RowReader(std::vector<std::string> null_values);

  // `data[size - 1]` is a line end and kPadding bytes behind it are readable. `number` tells blocks
  // apart, in the order of the source.
  Block read(const RowLayout& layout, const char* data, int64_t size, int64_t number);

  const Intern& texts(Role role) const { return texts_[role]; }
  Intern& texts(Role role) { return texts_[role]; }

 private:
  struct Row {
    std::array<Text, kRoles> field;
    int64_t line;
  };
  static constexpr int kBatch = 64;

  template <bool kQuotes, bool kOneByte>
  void read_table(const char* data, const char* end);
  void read_lines(const char* data, const char* end);
  void reserve(double rows);
  void line_end(const char* start, const char* at);
  void flush();
  void intern(Role role, std::vector<int32_t>& codes);
  void many_lined(const char* start, const char* stop, int64_t first_line, int64_t faults_before);
  int64_t separators(const char* start, const char* stop) const;
  Text unquoted(const char* start, const char* stop);

  RowLayout layout_;
  std::vector<std::vector<int>> roles_at_;  // field → roles
  std::vector<Intern> texts_;
  Block block_;
  std::array<Row, kBatch> batch_;
  int batched_ = 0;
  int64_t number_ = 0;
  int64_t line_ = 0;
  double rows_per_byte_ = 0;
  std::vector<std::vector<char>> scratch_;  // fields whose doubled quotes became single
};

// End of the last whole record in `data`, 0 if there is none.
int64_t last_record_end(const RowLayout& layout, const char* data, int64_t size);

// Fields of the record that begins at `data`, all of them; `*end` is where the next begins.
std::vector<std::string> record_fields(const RowLayout& layout, const char* data, int64_t size, int64_t* end);

}  // namespace fastpop
