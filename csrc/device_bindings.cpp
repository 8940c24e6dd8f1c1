// Binds the GPU kernels: each as <name>_host, lanes in a loop on the CPU, for tests, and where the
// build has CUDA as <name>_cuda, on a stream. Arguments go by name, as in the structs that they fill.
#include "device_bindings.h"

#include <cstdint>
#include <stdexcept>
#include <string>

#include "row_sum/row_sum.h"
#include "row_update/step.h"
#include "sampled_softmax/rows.h"

namespace py = pybind11;

namespace fastpop {
namespace {

class Arguments {
 public:
  explicit Arguments(const py::kwargs& given) : given_(given) {}

  template <typename T>
  T get(const char* name) const {
    return given_[name].cast<T>();
  }

  template <typename T>
  T* at(const char* name) const {
    return reinterpret_cast<T*>(get<uintptr_t>(name));
  }

  // (data_ptr, row stride, column stride, dtype code).
  Matrix matrix(const char* name) const {
    const auto t = get<py::tuple>(name);
    return {reinterpret_cast<void*>(t[0].cast<uintptr_t>()), t[1].cast<int64_t>(),
            t[2].cast<int64_t>(), static_cast<Dtype>(t[3].cast<int>())};
  }

 private:
  const py::kwargs& given_;
};

SampledRows sampled_rows_of(const Arguments& given) {
  SampledRows a{};
  a.query_BD = given.matrix("query");
  a.item_VD = given.matrix("item");
  a.B = given.get<int64_t>("B"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
  a.K = given.get<int64_t>("K"), a.group_size = given.get<int64_t>("group_size");
  a.pos_id_B = given.at<int64_t>("pos_id");
  a.neg_id_GK = given.at<int64_t>("neg_id");
  a.table = given.at<AliasRow>("table");
  a.counter_2 = given.at<uint64_t>("counter");
  a.key_V = given.at<int64_t>("key");
  a.log_prior_V = given.at<float>("log_prior");
  a.log_proposal_V = given.at<float>("log_proposal");
  a.prior_weight = given.at<float>("prior_weight");
  a.scale = given.at<float>("scale");
  a.logq = static_cast<LogQ>(given.get<int>("logq"));
  a.drop_hits = given.get<bool>("drop_hits");
  a.exclude_own_slot = given.get<bool>("exclude_own_slot");
  a.log_count = log_of_count(a.K, a.logq, a.exclude_own_slot);
  a.lse_B = given.at<float>("lse");
  a.pos_logit_B = given.at<float>("pos_logit");
  a.d_lse_B = given.at<float>("d_lse");
  a.d_pos_B = given.at<float>("d_pos");
  a.d_query_BD = given.at<float>("d_query");
  a.d_scale_B = given.at<double>("d_scale");
  a.entry_id = given.at<int32_t>("entry_id");
  a.coef_pos_B = given.at<float>("coef_pos");
  a.coef_BK = given.at<float>("coef");
  return a;
}

RowSum row_sum_of(const Arguments& given) {
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
  return a;
}

TableStep row_update_of(const Arguments& given) {
  TableStep a{};
  a.n = given.get<int64_t>("n"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
  a.table_VD = given.matrix("table");
  a.key_n = given.at<int32_t>("key");
  a.place_n = given.at<int64_t>("place");
  a.segment_n = given.at<int32_t>("segment");
  a.rows_nD = given.matrix("rows");
  a.sum_nD = given.at<float>("sum");
  a.mean_VD = given.at<float>("mean");
  a.mean_stride = given.get<int64_t>("mean_stride");
  a.square_V = given.at<float>("square");
  a.step_V = given.at<int64_t>("step");
  a.rule = static_cast<RowRule>(given.get<int>("rule"));
  a.lr = given.get<float>("lr"), a.eps = given.get<float>("eps");
  const auto beta_mean = given.get<double>("beta_mean"), beta_square = given.get<double>("beta_square");
  a.rest_mean = static_cast<float>(1 - beta_mean);
  a.rest_square = static_cast<float>(1 - beta_square);
  a.log_beta_mean = std::log(beta_mean), a.log_beta_square = std::log(beta_square);
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
  m.def("sampled_rows_host", [](bool backward, const py::kwargs& given) {
    sampled_rows_host(sampled_rows_of(Arguments(given)), backward);
  });
  m.def("row_sum_host", [](const py::kwargs& given) { row_sum_host(row_sum_of(Arguments(given))); });
  m.def("row_update_host",
        [](const py::kwargs& given) { row_update_host(row_update_of(Arguments(given))); });
#ifdef FASTPOP_WITH_CUDA
  m.def("sampled_rows_cuda", [](bool backward, uintptr_t stream, const py::kwargs& given) {
    const SampledRows a = sampled_rows_of(Arguments(given));
    run_on("sampled_softmax", [&] { return sampled_rows_cuda(a, backward, stream); });
  }, py::arg("backward"), py::arg("stream"));
  m.def("row_sum_cuda", [](uintptr_t stream, const py::kwargs& given) {
    const RowSum a = row_sum_of(Arguments(given));
    run_on("row_sum", [&] { return row_sum_cuda(a, stream); });
  }, py::arg("stream"));
  m.def("row_update_cuda", [](uintptr_t stream, const py::kwargs& given) {
    const TableStep a = row_update_of(Arguments(given));
    run_on("row_update", [&] { return row_update_cuda(a, stream); });
  }, py::arg("stream"));
#endif
}

}  // namespace fastpop
