// What the bindings of kernels share: arguments by name, as in the structs that they fill.
//
// A name that is missing where it is needed, or given and read by nobody, is a bug of the Python side,
// and said so. Tensors come as addresses of contiguous numbers; matrices of any strides as
// (data_ptr, row stride, column stride, dtype code): kernels/native.py makes both.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <unordered_map>
#include <vector>

#include "tile.h"

namespace fastpop {

class Arguments {
 public:
  explicit Arguments(const pybind11::kwargs& given) : given_(given) { read_.reserve(given.size()); }

  template <typename T>
  T get(const char* name) {
    const pybind11::handle found = find(name);
    if (!found) throw pybind11::type_error(std::string(name) + ": expected an argument of this name");
    return found.cast<T>();
  }

  template <typename T>
  T get(const char* name, T otherwise) {
    const pybind11::handle found = find(name);
    return found ? found.cast<T>() : otherwise;
  }

  // Null where nothing is given.
  template <typename T>
  T* at(const char* name) {
    return reinterpret_cast<T*>(get<uintptr_t>(name, 0));
  }

  Matrix matrix(const char* name) {
    const auto t = get<pybind11::tuple>(name);
    return {reinterpret_cast<void*>(t[0].cast<uintptr_t>()), t[1].cast<int64_t>(), t[2].cast<int64_t>(),
            static_cast<Dtype>(t[3].cast<int>())};
  }

  // One of the names, in the order of the enumeration.
  template <typename E>
  E choice(const char* name, std::initializer_list<const char*> names) {
    const auto given = get<std::string>(name);
    int at = 0;
    for (const char* one : names) {
      if (given == one) return static_cast<E>(at);
      ++at;
    }
    throw pybind11::type_error(std::string(name) + ": expected another name, got " + given);
  }

  // Of a structure's fields, those that this kernel has no use for.
  void leave(std::initializer_list<const char*> names) {
    for (const char* name : names) find(name);
  }

  // Once a struct is filled.
  void all_read() const {
    if (read_.size() == given_.size()) return;
    for (const auto& item : given_) {
      const auto name = item.first.cast<std::string>();
      bool known = false;
      for (const char* one : read_) known = known || name == one;
      if (!known) throw pybind11::type_error(name + ": expected no argument of this name");
    }
  }

 private:
  pybind11::handle find(const char* name) {
    const pybind11::handle found = PyDict_GetItem(given_.ptr(), interned(name));
    if (found) read_.push_back(name);
    return found;
  }

  // The names are literals, so an address stands for one. Under the GIL.
  static PyObject* interned(const char* name) {
    static auto* known = new std::unordered_map<const char*, PyObject*>;
    PyObject*& text = (*known)[name];
    if (text == nullptr) text = PyUnicode_InternFromString(name);
    return text;
  }

  const pybind11::kwargs& given_;
  std::vector<const char*> read_;
};

}  // namespace fastpop
