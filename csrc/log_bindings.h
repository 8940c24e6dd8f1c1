#pragma once

#include <pybind11/pybind11.h>

namespace fastpop {

// Adds what reads logs to the module.
void bind_log_kernels(pybind11::module_& m);

}  // namespace fastpop
