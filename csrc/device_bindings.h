#pragma once

#include <pybind11/pybind11.h>

namespace fastpop {

// Adds the GPU kernels, and their host emulations, to the module.
void bind_device_kernels(pybind11::module_& m);

}  // namespace fastpop
