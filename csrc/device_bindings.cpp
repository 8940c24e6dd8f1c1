// Binds the GPU kernels: each as <name>_host, lanes in a loop on the CPU, for tests, and where the
// build has CUDA as <name>_cuda, on a stream. Arguments go by name, as in the structs that they fill.
#include "device_bindings.h"

#include <cstdint>
#include <stdexcept>
#include <string>

#include "arguments.h"
#include "row_sum/row_sum.h"
#include "row_update/step.h"
#include "sampled_softmax/arguments.h"
#include "sampled_softmax/rows.h"

namespace py = pybind11;

namespace fastpop {
namespace {

SampledRows sampled_rows_of(const py::kwargs& kwargs) {
  Arguments given(kwargs);
  SampledRows a{};
  read_inputs(given, a);
  given.leave({"num_groups"});
  a.counter_2 = given.at<uint64_t>("counter");
  a.prior_weight = given.at<float>("prior_weight");
  a.scale = given.at<float>("scale");
  a.log_count = log_of_count(a.K, a.logq, a.exclude_diagonal);
  a.d_scale_B = given.at<double>("d_scale");
  a.entry_id = given.at<int32_t>("entry_id");
  a.coef_pos_B = given.at<float>("coef_pos");
  a.coef_BK = given.at<float>("coef");
  given.all_read();
  return a;
}

RowSum row_sum_of(const py::kwargs& kwargs) {
  Arguments given(kwargs);
  RowSum a{};
  a.num_entries = given.get<int64_t>("num_entries");
  a.num_rows = given.get<int64_t>("num_rows");
  a.D = given.get<int64_t>("D");
  a.chunk = given.get<int64_t>("chunk");
  a.key_N = given.at<int32_t>("key");
  a.place_N = given.at<int64_t>("place");
  a.segment_N = given.at<int32_t>("segment");
  a.rows = given.matrix("rows");
  a.num_heads = given.get<int64_t>("num_heads");
  a.B = given.get<int64_t>("B"), a.K = given.get<int64_t>("K");
  a.group_size = given.get<int64_t>("group_size");
  a.head_coef = given.at<float>("head_coef");
  a.coef_BK = given.at<float>("coef");
  a.scale = given.at<float>("scale");
  a.only_repeats = given.get<bool>("only_repeats");
  a.id_n = given.at<int64_t>("id");
  a.sum_nD = given.at<float>("sum");
  a.weight_n = given.at<double>("weight");
  a.carry_cD = given.at<float>("carry");
  a.carry_c = given.at<double>("carry_weight");
  given.all_read();
  return a;
}

TableStep row_update_of(const py::kwargs& kwargs) {
  Arguments given(kwargs);
  TableStep a{};
  a.n = given.get<int64_t>("n"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
  a.table_VD = given.matrix("table");
  a.id_n = given.at<int64_t>("id");
  a.key_n = given.at<int32_t>("key");
  a.place_n = given.at<int64_t>("place");
  a.segment_n = given.at<int32_t>("segment");
  a.rows_nD = given.matrix("rows");
  a.sum_nD = given.at<float>("sum");
  a.mean_VD = given.at<float>("mean");
  a.mean_stride = given.get<int64_t>("mean_stride");
  a.square_V = given.at<float>("square");
  a.step_V = given.at<int64_t>("step");
  a.found_inf = given.at<float>("found_inf");
  a.rule = given.choice<RowRule>("rule", {"sgd", "adagrad", "adam"});
  a.lr = given.get<float>("lr"), a.eps = given.get<float>("eps");
  const auto beta_mean = given.get<double>("beta1"), beta_square = given.get<double>("beta2");
  a.rest_mean = static_cast<float>(1 - beta_mean);
  a.rest_square = static_cast<float>(1 - beta_square);
  a.log_beta_mean = std::log(beta_mean), a.log_beta_square = std::log(beta_square);
  given.all_read();
  return a;
}

#ifdef FASTPOP_WITH_CUDA
template <class Launch>
void run_on(const char* name, Launch launch) {
  const char* error = nullptr;
  {
    py::gil_scoped_release release;
    error = launch();
  }
  if (error != nullptr) throw std::runtime_error(std::string(name) + " on CUDA: " + error);
}
#endif

}  // namespace

void bind_device_kernels(py::module_& m) {
  m.attr("max_dim") = kMaxDim;
  m.attr("max_group_size") = kMaxGroupSize;
  m.def("sampled_rows_host",
        [](bool backward, const py::kwargs& given) { sampled_rows_host(sampled_rows_of(given), backward); });
  m.def("row_sum_host", [](const py::kwargs& given) { row_sum_host(row_sum_of(given)); });
  m.def("row_update_host", [](const py::kwargs& given) { row_update_host(row_update_of(given)); });
#ifdef FASTPOP_WITH_CUDA
  m.def(
      "sampled_rows_cuda",
      [](bool backward, uintptr_t stream, const py::kwargs& given) {
        const SampledRows a = sampled_rows_of(given);
        run_on("sampled_softmax", [&] { return sampled_rows_cuda(a, backward, stream); });
      },
      py::arg("backward"), py::arg("stream"));
  m.def(
      "row_sum_cuda",
      [](uintptr_t stream, const py::kwargs& given) {
        const RowSum a = row_sum_of(given);
        run_on("row_sum", [&] { return row_sum_cuda(a, stream); });
      },
      py::arg("stream"));
  m.def(
      "row_update_cuda",
      [](uintptr_t stream, const py::kwargs& given) {
        const TableStep a = row_update_of(given);
        run_on("row_update", [&] { return row_update_cuda(a, stream); });
      },
      py::arg("stream"));
#endif
}

}  // namespace fastpop
