// The only PYBIND11_MODULE. Binds what each op's header declares; arguments were checked in Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "alias_draw/alias_draw.h"
#include "device_bindings.h"
#include "fork.h"
#include "full_softmax/full_softmax.h"
#include "log_bindings.h"
#include "row_index.h"
#include "row_update/row_update.h"
#include "sampled_softmax/sampled_softmax.h"
#include "score_energy/score_energy.h"
#include "target_ranks/target_ranks.h"
#include "tile.h"
#include "top_items/top_items.h"

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

template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

const fastpop::Tile& tile_of(const std::string& path) {
  const fastpop::Tile* tile = path == "auto" ? fastpop::best_tile() : fastpop::find_tile(path.c_str());
  if (tile == nullptr) throw std::invalid_argument("path: this machine has no " + path);
  return *tile;
}

// (data_ptr, row stride, column stride, dtype code) of a 2-d tensor.
fastpop::Matrix matrix_of(const py::tuple& t) {
  return {at<void>(t[0].cast<uintptr_t>()), t[1].cast<int64_t>(), t[2].cast<int64_t>(),
          static_cast<fastpop::Dtype>(t[3].cast<int>())};
}

void bind_tile(py::module_& m) {
  m.def("has_path", [](const char* path) { return fastpop::find_tile(path) != nullptr; }, "path"_a,
        "Whether this machine runs the path baseline, avx2 or avx512.");
  m.def("best_path", [] { return fastpop::best_tile()->name; }, "The path that \"auto\" takes.");
  m.def(
      "exp",
      [](const Array<float>& x, const std::string& path) {
        const fastpop::Tile& tile = tile_of(path);
        if (x.size() % tile.lanes != 0) throw std::invalid_argument("x: expected whole vectors");
        Array<float> out(x.size());
        std::copy(x.data(), x.data() + x.size(), out.mutable_data());
        tile.exp_row(out.mutable_data(), x.size(), 0.0f);
        return out;
      },
      "x"_a.noconvert(), "path"_a, "e^x of the kernels, for tests of its accuracy.");
  m.def(
      "bf16_products",
      [](const Array<uint16_t>& a_IT, const Array<uint16_t>& b_JT, const std::string& path) {
        const fastpop::Tile& tile = tile_of(path);
        const fastpop::HalfTile* half = tile.wide_half != nullptr ? tile.wide_half : tile.half;
        if (half == nullptr) throw std::invalid_argument("path: " + path + " has no bfloat16 products");
        const int64_t I = a_IT.shape(0), J = b_JT.shape(0), T = a_IT.shape(1);
        if (b_JT.shape(1) != T || I % half->rows != 0 || J % tile.panel != 0 || T % half->depth_unit != 0)
          throw std::invalid_argument("a_IT, b_JT: expected whole tiles of one depth");
        Array<float> out_IJ({I, J});
        std::vector<uint32_t> panels(J * T / 2);
        std::vector<float> bias(J, 0.0f), largest(half->rows);
        half->enter();
        for (int64_t j = 0; j < J; j += tile.panel)
          half->pack(b_JT.data() + j * T, T, T, panels.data() + j * T / 2);
        for (int64_t i = 0; i < I; i += half->rows)
          half->logits(a_IT.data() + i * T, T, T, panels.data(), J / tile.panel, 1.0f, bias.data(),
                       out_IJ.mutable_data() + i * J, J, largest.data());
        half->leave();
        return out_IJ;
      },
      "a_IT"_a.noconvert(), "b_JT"_a.noconvert(), "path"_a,
      "a b^T of bfloat16 bits as the path's widest products sum it, for tests of their bits.");
  py::class_<fastpop::RowIndex>(m, "RowIndex", "The sorted set of a step's ids.")
      .def(py::init<int64_t>(), "num_items"_a)
      .def(
          "add",
          [](fastpop::RowIndex& index, uintptr_t ids, int64_t num, int threads) {
            py::gil_scoped_release release;
            index.add(at<int64_t>(ids), num, threads);
          },
          "ids"_a, "num"_a, "threads"_a)
      .def(
          "add_draws",
          [](fastpop::RowIndex& index, uintptr_t table, int64_t num_items, uint64_t seed,
             uint64_t step, int64_t num_groups, int64_t num_draws, int threads) {
            py::gil_scoped_release release;
            index.add_draws(at<fastpop::AliasRow>(table), num_items, seed, step, num_groups,
                            num_draws, threads);
          },
          "table"_a, "num_items"_a, "seed"_a, "step"_a, "num_groups"_a, "num_draws"_a, "threads"_a)
      .def("finish", &fastpop::RowIndex::finish, py::call_guard<py::gil_scoped_release>())
      .def("__len__", &fastpop::RowIndex::size)
      .def("write_ids", [](const fastpop::RowIndex& index, uintptr_t ids) {
        index.write_ids(at<int64_t>(ids));
      });
}

void bind_sampled_softmax(py::module_& m) {
  m.def("sampled_softmax_can_fuse", &fastpop::sampled_softmax_can_fuse, "num_rows"_a,
        "group_size"_a, "K"_a, "D"_a);
  m.def(
      "sampled_softmax",
      [](int mode, const py::tuple& query, const py::tuple& item, int64_t B, int64_t V, int64_t D,
         int64_t G, int64_t K, int64_t group_size, uintptr_t pos_id, uintptr_t neg_id,
         uintptr_t table, uint64_t seed, uint64_t step, uintptr_t key,
         uintptr_t log_prior, uintptr_t log_proposal, double prior_weight, double scale, int logq,
         bool drop_hits, bool exclude_own_slot, uintptr_t lse, uintptr_t pos_logit,
         uintptr_t d_lse, uintptr_t d_pos, const fastpop::RowIndex* index, uintptr_t d_query,
         uintptr_t d_item, uintptr_t d_bias, bool wants_scale, int threads,
         const std::string& path) {
        double d_scale = 0;
        int64_t bad_prior_id = -1, bad_law_id = -1;
        fastpop::SampledSoftmax a{};
        a.query_BD = matrix_of(query);
        a.item_VD = matrix_of(item);
        a.B = B, a.V = V, a.D = D, a.G = G, a.K = K, a.group_size = group_size;
        a.pos_id_B = at<int64_t>(pos_id);
        a.neg_id_GK = at<int64_t>(neg_id);
        a.table = at<fastpop::AliasRow>(table);
        a.seed = seed, a.step = step;
        a.key_V = at<int64_t>(key);
        a.log_prior_V = at<float>(log_prior);
        a.log_proposal_V = at<float>(log_proposal);
        a.prior_weight = prior_weight, a.scale = scale;
        a.logq = static_cast<fastpop::LogQ>(logq);
        a.drop_hits = drop_hits, a.exclude_own_slot = exclude_own_slot;
        a.mode = static_cast<fastpop::SampledSoftmax::Mode>(mode);
        a.lse_B = at<float>(lse);
        a.pos_logit_B = at<float>(pos_logit);
        a.d_lse_B = at<float>(d_lse);
        a.d_pos_B = at<float>(d_pos);
        a.index = index;
        a.d_query_BD = at<float>(d_query);
        a.d_item_nD = at<float>(d_item);
        a.d_bias_n = at<double>(d_bias);
        a.d_scale = wants_scale ? &d_scale : nullptr;
        a.bad_prior_id = &bad_prior_id;
        a.bad_law_id = &bad_law_id;
        a.threads = threads;
        const fastpop::Tile& tile = tile_of(path);
        {
          py::gil_scoped_release release;
          fastpop::sampled_softmax_cpu(a, tile);
        }
        return py::make_tuple(d_scale, bad_prior_id, bad_law_id);
      },
      py::kw_only(), "mode"_a, "query"_a, "item"_a, "B"_a, "V"_a, "D"_a, "G"_a, "K"_a,
      "group_size"_a, "pos_id"_a, "neg_id"_a, "table"_a, "seed"_a, "step"_a, "key"_a, "log_prior"_a, "log_proposal"_a, "prior_weight"_a,
      "scale"_a, "logq"_a, "drop_hits"_a, "exclude_own_slot"_a, "lse"_a, "pos_logit"_a,
      "d_lse"_a = 0, "d_pos"_a = 0, "index"_a = nullptr, "d_query"_a = 0, "d_item"_a = 0,
      "d_bias"_a = 0, "wants_scale"_a = false, "threads"_a, "path"_a,
      "Addresses in, results written to them; returns d_scale and the ids of a bad log p and log q "
      "(-1: none). See kernels/sampled_softmax/_cpu.py.");
}

void bind_full_softmax(py::module_& m) {
  m.def(
      "full_softmax",
      [](bool backward, const py::tuple& query, const py::tuple& item, int64_t B, int64_t V,
         int64_t D, uintptr_t pos_id, uintptr_t log_prior, double prior_weight, double scale,
         uintptr_t lse, uintptr_t pos_logit, uintptr_t d_lse, uintptr_t d_pos, uintptr_t d_query,
         uintptr_t d_item, uintptr_t d_bias, bool wants_scale, int threads,
         const std::string& path) {
        double d_scale = 0;
        int64_t bad_prior_id = -1;
        fastpop::FullSoftmax a{};
        a.query_BD = matrix_of(query);
        a.item_VD = matrix_of(item);
        a.B = B, a.V = V, a.D = D;
        a.pos_id_B = at<int64_t>(pos_id);
        a.log_prior_V = at<float>(log_prior);
        a.prior_weight = prior_weight, a.scale = scale;
        a.lse_B = at<float>(lse);
        a.pos_logit_B = at<float>(pos_logit);
        a.d_lse_B = at<float>(d_lse);
        a.d_pos_B = at<float>(d_pos);
        a.d_query_BD = at<float>(d_query);
        a.d_item_VD = at<float>(d_item);
        a.d_bias_V = at<double>(d_bias);
        a.d_scale = wants_scale ? &d_scale : nullptr;
        a.bad_prior_id = &bad_prior_id;
        a.threads = threads;
        const fastpop::Tile& tile = tile_of(path);
        {
          py::gil_scoped_release release;
          (backward ? fastpop::full_softmax_backward : fastpop::full_softmax_forward)(a, tile);
        }
        return py::make_tuple(d_scale, bad_prior_id);
      },
      py::kw_only(), "backward"_a, "query"_a, "item"_a, "B"_a, "V"_a, "D"_a, "pos_id"_a,
      "log_prior"_a, "prior_weight"_a, "scale"_a, "lse"_a, "pos_logit"_a, "d_lse"_a = 0,
      "d_pos"_a = 0, "d_query"_a = 0, "d_item"_a = 0, "d_bias"_a = 0, "wants_scale"_a = false,
      "threads"_a, "path"_a,
      "Addresses in, results written to them; returns d_scale and the id of a bad log p (-1: none). "
      "See kernels/full_softmax/_cpu.py.");
}

void bind_score_energy(py::module_& m) {
  m.def(
      "row_moments",
      [](const py::object& rows, uintptr_t wide, uintptr_t extra, uintptr_t weight, int64_t N,
         int64_t D, int64_t M, int threads, const std::string& path) {
        Array<double> mean_R(D + M);
        Array<double> scatter_RR({D + M, D + M});
        double total = 0;
        fastpop::RowMoments a{};
        if (!rows.is_none()) a.rows_ND = matrix_of(rows.cast<py::tuple>());
        a.wide_ND = at<double>(wide);
        a.extra_NM = at<double>(extra);
        a.weight_N = at<double>(weight);
        a.N = N, a.D = D, a.M = M;
        a.weight = &total;
        a.mean_R = mean_R.mutable_data();
        a.scatter_RR = scatter_RR.mutable_data();
        a.threads = threads;
        const fastpop::Tile& tile = tile_of(path);
        {
          py::gil_scoped_release release;
          fastpop::row_moments(a, tile);
        }
        return py::make_tuple(total, mean_R, scatter_RR);
      },
      py::kw_only(), "rows"_a, "wide"_a = 0, "extra"_a = 0, "weight"_a = 0, "N"_a, "D"_a, "M"_a = 0,
      "threads"_a, "path"_a,
      "(sum of weights, mean [D + M], centred scatter [D + M, D + M]) in float64 of N rows.");
  m.def(
      "score_sums",
      [](const py::tuple& query, const py::tuple& item, const py::object& bias,
         const Array<float>& b_V, int64_t C, int64_t V, int64_t D, double scale, double cap,
         int threads, const std::string& path) {
        Array<double> square_C(C), along_C(C);
        fastpop::ScoreSums a{};
        a.query_CD = matrix_of(query);
        a.item_VD = matrix_of(item);
        Array<float> bias_V;
        if (!bias.is_none()) bias_V = bias.cast<Array<float>>();
        a.bias_V = bias.is_none() ? nullptr : bias_V.data();
        a.b_V = b_V.data();
        a.C = C, a.V = V, a.D = D;
        a.scale = scale, a.cap = cap;
        a.square_C = square_C.mutable_data();
        a.along_C = along_C.mutable_data();
        a.threads = threads;
        const fastpop::Tile& tile = tile_of(path);
        {
          py::gil_scoped_release release;
          fastpop::score_sums(a, tile);
        }
        return py::make_tuple(square_C, along_C);
      },
      py::kw_only(), "query"_a, "item"_a, "bias"_a, "b_V"_a.noconvert(), "C"_a, "V"_a, "D"_a,
      "scale"_a, "cap"_a, "threads"_a, "path"_a,
      "Per context: sum over items of (s - mean)^2, and of s * b.");
}

void bind_row_update(py::module_& m) {
  m.def(
      "row_update",
      [](int rule, const py::tuple& table, int64_t V, int64_t D, uintptr_t ids, int64_t n,
         const py::tuple& rows, uintptr_t mean, int64_t mean_stride, uintptr_t square,
         uintptr_t step, double lr, double beta1, double beta2, double eps, int threads,
         const std::string& path) {
        const fastpop::Matrix table_VD = matrix_of(table);
        fastpop::RowUpdate a{};
        a.table_VD = const_cast<void*>(table_VD.data);
        a.dtype = table_VD.dtype;
        a.table_stride = table_VD.row_stride, a.V = V, a.D = D;
        a.id_n = at<int64_t>(ids), a.n = n;
        a.rows_nD = matrix_of(rows);
        a.mean_VD = at<float>(mean), a.mean_stride = mean_stride;
        a.square_V = at<float>(square), a.step_V = at<int64_t>(step);
        a.lr = lr, a.beta1 = beta1, a.beta2 = beta2, a.eps = eps;
        a.rule = static_cast<fastpop::RowRule>(rule);
        a.threads = threads;
        const fastpop::Tile& tile = tile_of(path);
        py::gil_scoped_release release;
        return fastpop::row_update_cpu(a, tile);
      },
      py::kw_only(), "rule"_a, "table"_a, "V"_a, "D"_a, "ids"_a, "n"_a, "rows"_a, "mean"_a = 0,
      "mean_stride"_a = 0, "square"_a = 0, "step"_a = 0, "lr"_a, "beta1"_a = 0.0, "beta2"_a = 0.0,
      "eps"_a = 0.0, "threads"_a, "path"_a,
      "Addresses in, the table and its state changed in place; returns the position of the first id "
      "out of range (-1: none). See kernels/row_update/_cpu.py.");
}

void bind_top_items(py::module_& m) {
  m.def(
      "top_items",
      [](const py::tuple& query, const py::tuple& item, int64_t B, int64_t V, int64_t D, int64_t k,
         uintptr_t bias, double scale, uintptr_t exclude_offsets, uintptr_t exclude_item,
         uintptr_t id, uintptr_t score, int threads, const std::string& path) {
        fastpop::TopItems a{};
        a.query_BD = matrix_of(query);
        a.item_VD = matrix_of(item);
        a.B = B, a.V = V, a.D = D, a.k = k;
        a.bias_V = at<float>(bias);
        a.scale = scale;
        a.exclude_offsets = at<int64_t>(exclude_offsets);
        a.exclude_item = at<int64_t>(exclude_item);
        a.id_BK = at<int64_t>(id);
        a.score_BK = at<float>(score);
        a.threads = threads;
        const fastpop::Tile& tile = tile_of(path);
        py::gil_scoped_release release;
        fastpop::top_items_cpu(a, tile);
      },
      py::kw_only(), "query"_a, "item"_a, "B"_a, "V"_a, "D"_a, "k"_a, "bias"_a, "scale"_a,
      "exclude_offsets"_a, "exclude_item"_a, "id"_a, "score"_a, "threads"_a, "path"_a,
      "Addresses in, ids and scores written. See kernels/top_items/_cpu.py.");
}

void bind_target_ranks(py::module_& m) {
  m.def(
      "target_ranks",
      [](const py::tuple& query, const py::tuple& item, int64_t B, int64_t V, int64_t D, uintptr_t bias,
         double scale, uintptr_t target_offsets, uintptr_t target_item, uintptr_t exclude_offsets,
         uintptr_t exclude_item, uintptr_t greater, uintptr_t equal, uintptr_t score, uintptr_t lse,
         int threads, const std::string& path) {
        fastpop::TargetRanks a{};
        a.query_BD = matrix_of(query);
        a.item_VD = matrix_of(item);
        a.B = B, a.V = V, a.D = D;
        a.bias_V = at<float>(bias);
        a.scale = scale;
        a.target_offsets = at<int64_t>(target_offsets);
        a.target_item = at<int64_t>(target_item);
        a.exclude_offsets = at<int64_t>(exclude_offsets);
        a.exclude_item = at<int64_t>(exclude_item);
        a.greater_M = at<int64_t>(greater);
        a.equal_M = at<int64_t>(equal);
        a.score_M = at<float>(score);
        a.lse_B = at<float>(lse);
        a.threads = threads;
        const fastpop::Tile& tile = tile_of(path);
        py::gil_scoped_release release;
        fastpop::target_ranks_cpu(a, tile);
      },
      py::kw_only(), "query"_a, "item"_a, "B"_a, "V"_a, "D"_a, "bias"_a, "scale"_a,
      "target_offsets"_a, "target_item"_a, "exclude_offsets"_a, "exclude_item"_a, "greater"_a,
      "equal"_a, "score"_a, "lse"_a, "threads"_a, "path"_a,
      "Addresses in, counts, scores and sums written. See kernels/target_ranks/_cpu.py.");
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of fastpop. Private: call fastpop.ops instead.";
#ifdef FASTPOP_WITH_CUDA
  m.attr("cuda_arches") = FASTPOP_CUDA_ARCHES;  // as setup.py takes them
  m.attr("has_cuda") = true;
#else
  m.attr("cuda_arches") = "";
  m.attr("has_cuda") = false;
#endif
  fastpop::watch_forks();
  m.def("has_lost_threads", &fastpop::has_lost_threads, "Whether a fork left OpenMP's threads behind.");
  bind_alias_draw(m);
  bind_tile(m);
  bind_sampled_softmax(m);
  bind_full_softmax(m);
  bind_score_energy(m);
  fastpop::bind_device_kernels(m);
  bind_row_update(m);
  bind_target_ranks(m);
  bind_top_items(m);
  fastpop::bind_log_kernels(m);
}
