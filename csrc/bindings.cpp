// The only PYBIND11_MODULE. Each op's folder declares what it binds in its own header.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels of fastpop. Private: call fastpop.ops instead.";
#ifdef FASTPOP_WITH_CUDA
  m.attr("has_cuda") = true;
#else
  m.attr("has_cuda") = false;
#endif
}
