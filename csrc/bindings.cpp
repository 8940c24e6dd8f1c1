// The only PYBIND11_MODULE. Binds what each op's header declares; arguments were checked in Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "alias_draw/alias_draw.h"
#include "arguments.h"
#include "company.h"
#include "device_bindings.h"
#include "fork.h"
#include "full_softmax/full_softmax.h"
#include "log_bindings.h"
#include "row_index.h"
#include "row_update/row_update.h"
#include "sampled_softmax/arguments.h"
#include "sampled_softmax/sampled_softmax.h"
#include "score_energy/score_energy.h"
#include "steps.h"
#include "target_ranks/target_ranks.h"
#include "team.h"
#include "tile.h"
#include "top_items/top_items.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using fastpop::Arguments;

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
         py::ssize_t num_groups, py::ssize_t num_draws, int num_threads) {
        const auto* table = table_rows(table_V2);
        Array<int64_t> ids_GK({num_groups, num_draws});
        int64_t* ids = ids_GK.mutable_data();
        {
          py::gil_scoped_release release;
          fastpop::alias_draw_cpu(table, table_V2.shape(0), seed, step, group, num_groups, num_draws,
                                  num_threads, ids);
        }
        return ids_GK;
      },
      "table_V2"_a.noconvert(), "seed"_a, "step"_a, "group"_a, "num_groups"_a, "num_draws"_a,
      "num_threads"_a = 0, "ids int64 [G, K] drawn by the table; 0 threads: as many as the system gives.");
#ifdef FASTPOP_WITH_CUDA
  m.def(
      "alias_draw_cuda",
      [](uintptr_t table, int64_t num_items, uint64_t seed, uint64_t step, uint32_t group, int64_t num_groups,
         int64_t num_draws, uintptr_t ids, uintptr_t stream) {
        const char* error = nullptr;
        {
          py::gil_scoped_release release;
          error = fastpop::alias_draw_cuda(table, num_items, seed, step, group, num_groups, num_draws, ids,
                                           stream);
        }
        if (error != nullptr) throw std::runtime_error(std::string("alias_draw on CUDA: ") + error);
      },
      "table"_a, "num_items"_a, "seed"_a, "step"_a, "group"_a, "num_groups"_a, "num_draws"_a, "ids"_a,
      "stream"_a, "The same on device pointers, asynchronously on a stream.");
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

void bind_team(py::module_& m) {
  m.def(
      "num_meetings", [] { return fastpop::num_meetings.load(); },
      "Since the module was loaded: regions of more than one thread, and gates in them (csrc/steps.h).");
  m.def("threads_of", [] { return fastpop::threads_of(); }, "Whose the threads of the kernels are.");
  m.def(
      "num_alone", [] { return fastpop::num_alone.load(); },
      "Since the module was loaded: calls that were made alone, as others had come late (csrc/company.h).");
  m.def(
      "keep_company",
      [](const py::list& calls) {
        fastpop::Company company;
        py::list with_others;
        for (const py::handle one : calls) {
          const auto [n, mine, worked, waited] = one.cast<std::tuple<int64_t, int64_t, int64_t, int64_t>>();
          const bool wanted = company.wanted(n);
          if (wanted) company.met(n, mine, worked, waited);
          with_others.append(wanted);
        }
        return with_others;
      },
      "Whether each of these calls is made with others: things, those of the caller, its ns of work and of "
      "waiting.");
  m.def(
      "run_steps",
      [](int threads, int num_steps, int num_pieces, int bad_step, int bad_piece) {
        py::gil_scoped_release release;
        fastpop::Steps steps(2);
        int before = -1;
        for (int i = 0; i < num_steps; ++i) before = steps.add(0, i, num_pieces, {-1, -1, before});
        std::atomic<int> done{0};
        steps.run(threads, [&](const fastpop::Steps::Piece& piece, int) {
          if (piece.what == bad_step && piece.number == bad_piece)
            throw std::runtime_error("piece " + std::to_string(bad_piece) + " of step " +
                                     std::to_string(bad_step));
          ++done;
        });
        return done.load();
      },
      "threads"_a, "num_steps"_a, "num_pieces"_a, "bad_step"_a, "bad_piece"_a,
      "How many pieces of steps that follow each other ran, one of which may throw, for tests of that.");
}

void bind_tile(py::module_& m) {
  m.def(
      "has_path", [](const char* path) { return fastpop::find_tile(path) != nullptr; }, "path"_a,
      "Whether this build has the path, and this machine can run it: one of PATHS of kernels/native.py.");
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
        const fastpop::Bf16Tile* bf16 = tile.wide_bf16 != nullptr ? tile.wide_bf16 : tile.bf16;
        if (bf16 == nullptr) throw std::invalid_argument("path: " + path + " has no bfloat16 products");
        const int64_t I = a_IT.shape(0), J = b_JT.shape(0), T = a_IT.shape(1);
        if (b_JT.shape(1) != T || I % bf16->rows != 0 || J % tile.panel != 0 || T % bf16->depth_unit != 0)
          throw std::invalid_argument("a_IT, b_JT: expected whole tiles of one depth");
        Array<float> out_IJ({I, J});
        std::vector<uint32_t> panels(J * T / 2);
        std::vector<float> bias(J, 0.0f), largest(bf16->rows);
        bf16->enter();
        for (int64_t j = 0; j < J; j += tile.panel)
          bf16->pack(b_JT.data() + j * T, T, T, panels.data() + j * T / 2);
        for (int64_t i = 0; i < I; i += bf16->rows)
          bf16->logits(a_IT.data() + i * T, T, T, panels.data(), J / tile.panel, 1.0f, bias.data(),
                       out_IJ.mutable_data() + i * J, J, largest.data());
        bf16->leave();
        return out_IJ;
      },
      "a_IT"_a.noconvert(), "b_JT"_a.noconvert(), "path"_a,
      "a b^T of bfloat16 bits as the path's widest products sum it, for tests of their bits.");
  py::class_<fastpop::RowIndex>(m, "RowIndex", "The sorted set of a step's ids.")
      .def(py::init<int64_t, int64_t>(), "num_items"_a, "num_ids"_a)
      .def(
          "add",
          [](fastpop::RowIndex& index, uintptr_t ids, int64_t num, int threads) {
            py::gil_scoped_release release;
            index.add(at<int64_t>(ids), num, threads);
          },
          "ids"_a, "num"_a, "threads"_a)
      .def(
          "add_draws",
          [](fastpop::RowIndex& index, uintptr_t table, int64_t num_items, uint64_t seed, uint64_t step,
             int64_t num_groups, int64_t num_draws, int threads) {
            py::gil_scoped_release release;
            index.add_draws(at<fastpop::AliasRow>(table), num_items, seed, step, num_groups, num_draws,
                            threads);
          },
          "table"_a, "num_items"_a, "seed"_a, "step"_a, "num_groups"_a, "num_draws"_a, "threads"_a)
      .def("finish", &fastpop::RowIndex::finish, py::call_guard<py::gil_scoped_release>())
      .def("__len__", &fastpop::RowIndex::size)
      .def("write_ids",
           [](const fastpop::RowIndex& index, uintptr_t ids) { index.write_ids(at<int64_t>(ids)); });
}

void bind_sampled_softmax(py::module_& m) {
  m.def("sampled_softmax_can_fuse", &fastpop::sampled_softmax_can_fuse, "num_rows"_a, "group_size"_a, "K"_a,
        "D"_a);
  m.def(
      "sampled_softmax",
      [](const py::kwargs& kwargs) {
        Arguments given(kwargs);
        double d_scale = 0;
        int64_t bad_prior_id = -1, bad_proposal_id = -1;
        fastpop::SampledSoftmax a{};
        fastpop::read_inputs(given, a);
        a.G = given.get<int64_t>("num_groups");
        if (const auto* counter = given.at<uint64_t>("counter")) a.seed = counter[0], a.step = counter[1];
        a.prior_weight = given.get<double>("prior_weight"), a.scale = given.get<double>("scale");
        a.mode = given.choice<fastpop::SampledSoftmax::Mode>("mode", {"forward", "fused", "backward"});
        a.index = given.get<const fastpop::RowIndex*>("index", nullptr);
        a.d_item_nD = given.at<float>("d_item");
        a.d_bias_n = given.at<double>("d_bias");
        a.d_scale = given.get<bool>("wants_scale", false) ? &d_scale : nullptr;
        a.bad_prior_id = &bad_prior_id;
        a.bad_proposal_id = &bad_proposal_id;
        a.threads = given.get<int>("threads");
        const fastpop::Tile& tile = tile_of(given.get<std::string>("path"));
        given.all_read();
        {
          py::gil_scoped_release release;
          fastpop::sampled_softmax_cpu(a, tile);
        }
        return py::make_tuple(d_scale, bad_prior_id, bad_proposal_id);
      },
      "Addresses in, results written to them; returns d_scale and the ids of a bad log p and log q "
      "(-1: none). See kernels/sampled_softmax/_cpu.py.");
}

void bind_full_softmax(py::module_& m) {
  m.def(
      "full_softmax",
      [](const py::kwargs& kwargs) {
        Arguments given(kwargs);
        double d_scale = 0;
        int64_t bad_prior_id = -1;
        fastpop::FullSoftmax a{};
        a.query_BD = given.matrix("query");
        a.item_VD = given.matrix("item");
        a.B = given.get<int64_t>("B"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
        a.pos_id_B = given.at<int64_t>("pos_id");
        a.log_prior_V = given.at<float>("log_prior");
        a.prior_weight = given.get<double>("prior_weight"), a.scale = given.get<double>("scale");
        a.lse_B = given.at<float>("lse");
        a.pos_logit_B = given.at<float>("pos_logit");
        a.d_lse_B = given.at<float>("d_lse");
        a.d_pos_B = given.at<float>("d_pos");
        a.d_query_BD = given.at<float>("d_query");
        a.d_item_VD = given.at<float>("d_item");
        a.d_bias_V = given.at<double>("d_bias");
        a.d_scale = given.get<bool>("wants_scale", false) ? &d_scale : nullptr;
        a.bad_prior_id = &bad_prior_id;
        a.threads = given.get<int>("threads");
        const bool backward = given.get<bool>("backward");
        const fastpop::Tile& tile = tile_of(given.get<std::string>("path"));
        given.all_read();
        {
          py::gil_scoped_release release;
          (backward ? fastpop::full_softmax_backward : fastpop::full_softmax_forward)(a, tile);
        }
        return py::make_tuple(d_scale, bad_prior_id);
      },
      "Addresses in, results written to them; returns d_scale and the id of a bad log p (-1: none). "
      "See kernels/full_softmax/_cpu.py.");
}

void bind_row_moments(py::module_& m) {
  m.def(
      "row_moments",
      [](const py::kwargs& kwargs) {
        Arguments given(kwargs);
        double total = 0;
        fastpop::RowMoments a{};
        a.N = given.get<int64_t>("N"), a.D = given.get<int64_t>("D"), a.M = given.get<int64_t>("M");
        Array<double> mean_R(a.D + a.M);
        Array<double> scatter_RR({a.D + a.M, a.D + a.M});
        a.wide_ND = given.at<double>("wide");
        if (a.wide_ND == nullptr) a.rows_ND = given.matrix("rows");
        a.extra_NM = given.at<double>("extra");
        a.weight_N = given.at<double>("weight");
        a.weight = &total;
        a.mean_R = mean_R.mutable_data();
        a.scatter_RR = scatter_RR.mutable_data();
        a.threads = given.get<int>("threads");
        const fastpop::Tile& tile = tile_of(given.get<std::string>("path"));
        given.all_read();
        {
          py::gil_scoped_release release;
          fastpop::row_moments(a, tile);
        }
        return py::make_tuple(total, mean_R, scatter_RR);
      },
      "(sum of weights, mean [D + M], centred scatter [D + M, D + M]) in float64 of N rows, `wide` "
      "float64 or the matrix `rows`.");
}

void bind_score_energy(py::module_& m) {
  m.def(
      "score_energy",
      [](const py::kwargs& kwargs) {
        Arguments given(kwargs);
        fastpop::ScoreSums a{};
        a.query_CD = given.matrix("query");
        a.item_VD = given.matrix("item");
        a.bias_V = given.at<float>("bias");
        a.b_V = given.at<float>("direction");
        a.C = given.get<int64_t>("C"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
        a.scale = given.get<double>("scale"), a.cap = given.get<double>("cap");
        Array<double> square_C(a.C), along_C(a.C);
        a.square_C = square_C.mutable_data();
        a.along_C = along_C.mutable_data();
        a.threads = given.get<int>("threads");
        const fastpop::Tile& tile = tile_of(given.get<std::string>("path"));
        given.all_read();
        {
          py::gil_scoped_release release;
          fastpop::score_sums(a, tile);
        }
        return py::make_tuple(square_C, along_C);
      },
      "Per context: sum over items of (s - mean)^2, and of s * direction.");
}

void bind_row_update(py::module_& m) {
  m.def(
      "row_update",
      [](const py::kwargs& kwargs) {
        Arguments given(kwargs);
        const fastpop::Matrix table_VD = given.matrix("table");
        fastpop::RowUpdate a{};
        a.table_VD = const_cast<void*>(table_VD.data);
        a.dtype = table_VD.dtype;
        a.table_stride = table_VD.row_stride;
        a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D"), a.n = given.get<int64_t>("n");
        a.id_n = given.at<int64_t>("ids");
        a.rows_nD = given.matrix("rows");
        a.mean_VD = given.at<float>("mean"), a.mean_stride = given.get<int64_t>("mean_stride");
        a.square_V = given.at<float>("square"), a.step_V = given.at<int64_t>("step");
        a.lr = given.get<double>("lr"), a.eps = given.get<double>("eps");
        a.beta1 = given.get<double>("beta1"), a.beta2 = given.get<double>("beta2");
        a.rounding_seed = given.get<int64_t>("rounding_seed");
        a.rounding_step = given.get<int64_t>("rounding_step");
        a.rule = given.choice<fastpop::RowRule>("rule", {"sgd", "adagrad", "adam"});
        a.threads = given.get<int>("threads");
        const fastpop::Tile& tile = tile_of(given.get<std::string>("path"));
        given.all_read();
        py::gil_scoped_release release;
        return fastpop::row_update_cpu(a, tile);
      },
      "Addresses in, the table and its state changed in place; returns the position of the first id "
      "out of range (-1: none). See kernels/row_update/_cpu.py.");
}

void bind_top_items(py::module_& m) {
  m.def(
      "top_items",
      [](const py::kwargs& kwargs) {
        Arguments given(kwargs);
        fastpop::TopItems a{};
        a.query_BD = given.matrix("query");
        a.item_VD = given.matrix("item");
        a.B = given.get<int64_t>("B"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
        a.k = given.get<int64_t>("k");
        a.bias_V = given.at<float>("bias");
        a.scale = given.get<double>("scale");
        a.exclude_offsets = given.at<int64_t>("exclude_offsets");
        a.exclude_item = given.at<int64_t>("exclude_item");
        a.id_BK = given.at<int64_t>("id");
        a.score_BK = given.at<float>("score");
        a.threads = given.get<int>("threads");
        const fastpop::Tile& tile = tile_of(given.get<std::string>("path"));
        given.all_read();
        py::gil_scoped_release release;
        fastpop::top_items_cpu(a, tile);
      },
      "Addresses in, ids and scores written. See kernels/top_items/_cpu.py.");
}

void bind_target_ranks(py::module_& m) {
  m.def(
      "target_ranks",
      [](const py::kwargs& kwargs) {
        Arguments given(kwargs);
        fastpop::TargetRanks a{};
        a.query_BD = given.matrix("query");
        a.item_VD = given.matrix("item");
        a.B = given.get<int64_t>("B"), a.V = given.get<int64_t>("V"), a.D = given.get<int64_t>("D");
        a.bias_V = given.at<float>("bias");
        a.scale = given.get<double>("scale");
        a.target_offsets = given.at<int64_t>("target_offsets");
        a.target_item = given.at<int64_t>("target_item");
        a.exclude_offsets = given.at<int64_t>("exclude_offsets");
        a.exclude_item = given.at<int64_t>("exclude_item");
        a.own_M = given.at<float>("own");
        a.greater_M = given.at<int64_t>("greater");
        a.equal_M = given.at<int64_t>("equal");
        a.score_M = given.at<float>("score");
        a.lse_B = given.at<float>("lse");
        a.threads = given.get<int>("threads");
        const fastpop::Tile& tile = tile_of(given.get<std::string>("path"));
        given.all_read();
        py::gil_scoped_release release;
        fastpop::target_ranks_cpu(a, tile);
      },
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
#ifdef __clang__
  m.attr("compiler") = __VERSION__;  // its name is in it
#else
  m.attr("compiler") = "GCC " __VERSION__;
#endif
  fastpop::watch_forks();
  bind_team(m);
  m.def("has_lost_threads", &fastpop::has_lost_threads, "Whether a fork left OpenMP's threads behind.");
  bind_alias_draw(m);
  bind_tile(m);
  bind_sampled_softmax(m);
  bind_full_softmax(m);
  bind_row_moments(m);
  bind_score_energy(m);
  fastpop::bind_device_kernels(m);
  bind_row_update(m);
  bind_target_ranks(m);
  bind_top_items(m);
  fastpop::bind_log_kernels(m);
}
