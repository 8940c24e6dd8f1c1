// Binds the readers of text logs and the sort of their events; arguments were checked in Python.
#include "log_bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "event_order/event_order.h"
#include "log_rows/ids.h"
#include "log_rows/log_rows.h"

namespace py = pybind11;
using namespace py::literals;

namespace fastpop {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// A vector as an array that owns it.
template <typename T>
py::array_t<T> as_array(std::vector<T>&& values) {
  auto* const kept = new std::vector<T>(std::move(values));
  py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

// Bytes of a block; `size` of them, with kPadding readable ones behind.
const char* bytes_of(const Array<uint8_t>& data, int64_t size) {
  if (data.ndim() != 1 || data.shape(0) < size + kPadding)
    throw std::invalid_argument("data: expected 64 bytes behind the text");
  return reinterpret_cast<const char*>(data.data());
}

py::dict block_dict(Block&& b) {
  // [faults, 5]: kind, row, first line, last line, fields; a block is too short for more than int32
  py::array_t<int32_t> faults({static_cast<py::ssize_t>(b.faults.size()), py::ssize_t{5}});
  int32_t* fault = faults.mutable_data();
  for (const Fault& f : b.faults)
    for (const int64_t value : {f.kind, f.row, f.first_line, f.last_line, f.count})
      *fault++ = static_cast<int32_t>(value);
  return py::dict("rows"_a = b.rows, "lines"_a = b.lines, "inside"_a = b.inside, "blanks"_a = b.blanks,
                  "records"_a = b.records, "many_lined"_a = b.many_lined, "bad_weights"_a = b.bad_weights,
                  "bad_ratings"_a = b.bad_ratings, "not_utf8"_a = b.not_utf8,
                  "stray_return"_a = b.stray_return, "first_lf"_a = b.first_lf, "first_crlf"_a = b.first_crlf,
                  "swallow"_a = py::make_tuple(b.swallow_first, b.swallow_last),
                  "tick_kinds"_a = b.tick_kinds, "tick_sizes"_a = b.tick_sizes, "faults"_a = faults,
                  "user"_a = as_array(std::move(b.user)), "item"_a = as_array(std::move(b.item)),
                  "behavior"_a = as_array(std::move(b.behavior)), "line"_a = as_array(std::move(b.line)),
                  "tick"_a = as_array(std::move(b.tick)), "tick_kind"_a = as_array(std::move(b.tick_kind)),
                  "weight"_a = as_array(std::move(b.weight)), "rating"_a = as_array(std::move(b.rating)));
}

RowLayout row_layout(const std::string& shape, const std::string& separator, const std::string& quote,
                     bool quote_all, bool code_times, int64_t num_fields,
                     const std::array<int64_t, kRoles>& position) {
  RowLayout layout;
  layout.shape = shape == "table" ? Shape::kTable : shape == "sequence" ? Shape::kSequence : Shape::kSessions;
  layout.separator = separator;
  layout.quote = quote.empty() ? -1 : static_cast<unsigned char>(quote[0]);
  layout.quote_all = quote_all;
  layout.code_times = code_times;
  layout.num_fields = num_fields;
  layout.position = position;
  return layout;
}

struct Sources {
  std::vector<Intern*> readers;
  std::vector<const uint8_t*> used;
};

Sources sources(const std::vector<std::shared_ptr<RowReader>>& readers, int role, const py::list& used) {
  Sources s;
  for (size_t r = 0; r < readers.size(); ++r) {
    s.readers.push_back(&readers[r]->texts(static_cast<Role>(role)));
    const py::object one = used[r];
    if (one.is_none()) {
      s.used.push_back(nullptr);
      continue;
    }
    const auto mask = one.cast<Array<uint8_t>>();
    if (mask.size() != s.readers.back()->size())
      throw std::invalid_argument("used: expected one byte a code");
    s.used.push_back(mask.data());
  }
  return s;
}

template <typename T>
const T* data_or_null(const py::object& array) {
  return array.is_none() ? nullptr : array.cast<Array<T>>().data();
}

// (size, first_row, user, item, tick, weight, fate); the caller keeps the arrays.
EventRows event_rows(const py::tuple& t) {
  EventRows rows;
  rows.size = t[0].cast<int64_t>();
  rows.first_row = t[1].cast<int64_t>();
  rows.user = data_or_null<int32_t>(t[2]);
  rows.item = data_or_null<int32_t>(t[3]);
  rows.tick = data_or_null<int64_t>(t[4]);
  rows.weight = data_or_null<double>(t[5]);
  rows.fate = data_or_null<uint8_t>(t[6]);
  return rows;
}

}  // namespace

void bind_log_kernels(py::module_& m) {
  py::class_<RowLayout>(m, "RowLayout")
      .def(py::init(&row_layout), py::kw_only(), "shape"_a, "separator"_a, "quote"_a, "quote_all"_a,
           "code_times"_a, "num_fields"_a, "position"_a);
  py::class_<RowReader, std::shared_ptr<RowReader>>(m, "RowReader")
      .def(py::init<std::vector<std::string>>(), "null_values"_a)
      .def(
          "read",
          [](RowReader& reader, const RowLayout& layout, const Array<uint8_t>& data, int64_t start,
             int64_t size, int64_t number) {
            const char* const bytes = bytes_of(data, start + size);
            Block block;
            {
              py::gil_scoped_release release;
              block = reader.read(layout, bytes + start, size, number);
            }
            return block_dict(std::move(block));
          },
          "layout"_a, "data"_a.noconvert(), "start"_a, "size"_a, "number"_a,
          "Columns and counts of the whole records in data[start:start + size].")
      .def(
          "texts",
          [](const RowReader& reader, int role) {
            const Intern& texts = reader.texts(static_cast<Role>(role));
            py::list all(texts.size());
            texts.each([&](int32_t code, std::string_view text, int64_t, uint64_t) {
              all[code] = py::str(text.data(), text.size());
            });
            return all;
          },
          "role"_a, "The distinct texts of a role, by code.")
      .def("num_texts", [](const RowReader& r, int role) { return r.texts(static_cast<Role>(role)).size(); })
      .def("bytes", [](const RowReader& r) {
        int64_t total = 0;
        for (int role = 0; role < kRoles; ++role) total += r.texts(static_cast<Role>(role)).bytes();
        return total;
      });
  m.def(
      "count_byte",
      [](const Array<uint8_t>& data, int64_t start, int64_t size, uint8_t byte) {
        const uint8_t* const first = data.data() + start;
        py::gil_scoped_release release;
        int64_t count = 0;
        for (int64_t n = 0; n < size; ++n) count += first[n] == byte;
        return count;
      },
      "data"_a.noconvert(), "start"_a, "size"_a, "byte"_a, "How often a byte occurs.");
  m.def(
      "last_record_end",
      [](const RowLayout& layout, const Array<uint8_t>& data, int64_t start, int64_t size) {
        const char* const bytes = bytes_of(data, start + size);
        py::gil_scoped_release release;
        return last_record_end(layout, bytes + start, size);
      },
      "layout"_a, "data"_a.noconvert(), "start"_a, "size"_a);
  m.def(
      "record_fields",
      [](const RowLayout& layout, const py::bytes& data, int64_t start) {
        const std::string_view view(data);
        int64_t end = 0;
        py::list fields;
        for (const std::string& field :
             record_fields(layout, view.data() + start, static_cast<int64_t>(view.size()) - start, &end))
          fields.append(py::bytes(field));
        return py::make_tuple(fields, start + end);
      },
      "layout"_a, "data"_a, "start"_a, "Fields of the record at `start`, and where the next begins.");
  m.def(
      "count_ids",
      [](const std::vector<std::shared_ptr<RowReader>>& readers, int role, const py::list& used) {
        const Sources s = sources(readers, role, used);
        py::list kinds;
        std::vector<uint8_t*> written;
        for (const Intern* texts : s.readers) {
          Array<uint8_t> kind(texts->size());
          written.push_back(kind.mutable_data());
          kinds.append(kind);
        }
        IdCounts found;
        {
          py::gil_scoped_release release;
          found = count_ids({s.readers.begin(), s.readers.end()}, s.used, written);
        }
        return py::make_tuple(found.count, found.place, found.text, kinds);
      },
      "readers"_a, "role"_a, "used"_a);
  m.def(
      "dense_ids",
      [](const std::vector<std::shared_ptr<RowReader>>& readers, int role, const py::list& used, bool whole) {
        const Sources s = sources(readers, role, used);
        DenseIds ids;
        {
          py::gil_scoped_release release;
          ids = dense_ids(s.readers, s.used, whole);
        }
        py::list maps;
        for (auto& map : ids.dense) maps.append(as_array(std::move(map)));
        py::object values = py::none();
        if (whole) {
          values = as_array(std::move(ids.numbers));
        } else {
          values = py::make_tuple(as_array(std::move(ids.texts)), as_array(std::move(ids.offsets)));
        }
        return py::make_tuple(values, maps);
      },
      "readers"_a, "role"_a, "used"_a, "whole"_a);
  m.def(
      "map_codes",
      [](const Array<int32_t>& map, Array<int32_t> codes) {
        const int32_t* const to = map.data();
        int32_t* const from = codes.mutable_data();
        const int64_t size = codes.size();
        py::gil_scoped_release release;
        map_codes(to, size, from);
      },
      "map"_a.noconvert(), "codes"_a.noconvert(), "Codes become map[code], in place; -1 stays.");
  m.def(
      "count_events",
      [](const py::tuple& rows, Array<int64_t> count_U) {
        const EventRows r = event_rows(rows);
        int64_t* const count = count_U.mutable_data();
        py::gil_scoped_release release;
        count_events(r, count);
      },
      "rows"_a, "count_U"_a.noconvert());
  py::class_<EventRange>(m, "EventRange")
      .def(py::init([](const Array<int64_t>& offset_U, int64_t first, int64_t last, bool weighted) {
             return std::make_unique<EventRange>(offset_U.data(), first, last, weighted);
           }),
           "offset_U"_a.noconvert(), "first"_a, "last"_a, "weighted"_a, py::keep_alive<1, 2>())
      .def(
          "add",
          [](EventRange& range, const py::tuple& rows) {
            const EventRows r = event_rows(rows);
            py::gil_scoped_release release;
            range.add(r);
          },
          "rows"_a)
      .def(
          "finish",
          [](EventRange& range, int64_t first, int64_t last, int64_t per_second, bool real, double unit,
             Array<int64_t> user, Array<int64_t> item, const py::object& time, const py::object& weight,
             Array<int64_t> row) {
            EventColumns out;
            out.user = user.mutable_data();
            out.item = item.mutable_data();
            out.row = row.mutable_data();
            if (!time.is_none()) out.time = time.cast<Array<int64_t>>().mutable_data();
            if (!weight.is_none()) out.weight = weight.cast<Array<double>>().mutable_data();
            py::gil_scoped_release release;
            range.finish(first, last, per_second, real, unit, out);
          },
          py::kw_only(), "first"_a, "last"_a, "per_second"_a, "real"_a, "unit"_a, "user"_a.noconvert(),
          "item"_a.noconvert(), "time"_a, "weight"_a, "row"_a.noconvert());
}

}  // namespace fastpop
