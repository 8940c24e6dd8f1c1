// The only PYBIND11_MODULE. Binds what each op's header declares; arguments were checked in Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "alias_draw/alias_draw.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Table rows as the draw reads them. A wrong shape here is a bug of the caller in Python.
const fastpop::AliasRow* table_rows(const Array<uint32_t>& table_V2) {
  if (table_V2.ndim() != 2 || table_V2.shape(1) != 2 || table_V2.shape(0) < 1)
    throw std::invalid_argument("table_V2: expected shape [V, 2]");
  return reinterpret_cast<const fastpop::AliasRow*>(table_V2.data());
}

void bind_alias_draw(py::module_& m) {
  m.def(
      "philox4x32",
      [](uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t key0, uint32_t key1) {
        const auto w = fastpop::philox4x32_10({c0, c1, c2, c3}, key0, key1);
        return py::make_tuple(w.w0, w.w1, w.w2, w.w3);
      },
      "One Philox4x32-10 block, for known-answer tests.");
  m.def(
      "alias_build",
      [](const Array<uint64_t>& mass_V) {
        if (mass_V.ndim() != 1 || mass_V.shape(0) < 2)
          throw std::invalid_argument("mass_V: expected shape [V], V >= 2");
        const py::ssize_t num_items = mass_V.shape(0);
        Array<uint32_t> table_V2({num_items, py::ssize_t{2}});
        const uint64_t* mass = mass_V.data();
        auto* table = reinterpret_cast<fastpop::AliasRow*>(table_V2.mutable_data());
        {
          py::gil_scoped_release release;
          fastpop::alias_build(mass, num_items, table);
        }
        return table_V2;
      },
      "mass_V"_a.noconvert(), "Alias table uint32 [V, 2] of masses that add up to 2^64.");
  m.def(
      "alias_draw",
      [](const Array<uint32_t>& table_V2, uint64_t seed, uint64_t step, uint32_t group,
         py::ssize_t num_groups, py::ssize_t num_draws) {
        const auto* table = table_rows(table_V2);
        Array<int64_t> ids_GK({num_groups, num_draws});
        int64_t* ids = ids_GK.mutable_data();
        {
          py::gil_scoped_release release;
          fastpop::alias_draw_cpu(table, table_V2.shape(0), seed, step, group, num_groups,
                                  num_draws, ids);
        }
        return ids_GK;
      },
      "table_V2"_a.noconvert(), "seed"_a, "step"_a, "group"_a, "num_groups"_a, "num_draws"_a,
      "ids int64 [G, K] drawn by the table.");
#ifdef FASTPOP_WITH_CUDA
  m.def(
      "alias_draw_cuda",
      [](uintptr_t table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group,
         int64_t num_groups, int64_t num_draws, uintptr_t ids, uintptr_t stream) {
        const char* error = nullptr;
        {
          py::gil_scoped_release release;
          error = fastpop::alias_draw_cuda(table, num_items, seed, step, group, num_groups,
                                           num_draws, ids, stream);
        }
        if (error != nullptr) throw std::runtime_error(std::string("alias_draw on CUDA: ") + error);
      },
      "table"_a, "num_items"_a, "seed"_a, "step"_a, "group"_a, "num_groups"_a, "num_draws"_a,
      "ids"_a, "stream"_a, "The same on device pointers, asynchronously on a stream.");
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of fastpop. Private: call fastpop.ops instead.";
#ifdef FASTPOP_WITH_CUDA
  m.attr("has_cuda") = true;
#else
  m.attr("has_cuda") = false;
#endif
  bind_alias_draw(m);
}
