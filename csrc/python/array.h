// The only place where a Python object becomes a View. Checks dtype, device, memory order and writability; converts and
// copies nothing.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "gencore/gencore.h"

namespace gencore::python {

namespace py = pybind11;

// Where the arrays of a call are: all of them on the CPU, or all on one CUDA device.
struct Placement {
  std::string cpu, cuda;  // an argument of each kind
  int device = -1;
  void* stream = nullptr;
};

// The array behind one argument, and whoever must stay alive while its memory is used.
struct Argument {
  const char* op;
  const char* name;
  py::handle value;
  std::vector<py::object>& keep_alive;
  Placement& placement;
};

inline std::string type_name(py::handle value) { return py::str(py::type::handle_of(value).attr("__name__")); }

[[noreturn]] inline void wrong_type(const Argument& arg, const std::string& expected, const std::string& received) {
  throw TypeError(std::string(arg.op) + ": expected " + arg.name + " " + expected + ", received " + received);
}

// What a View needs to know of an array, wherever its memory is.
struct Array {
  py::dtype dtype;
  void* data;
  int rank;
  const py::ssize_t* extents;            // of a NumPy array
  std::vector<py::ssize_t> own_extents;  // of a device array
  bool c_order, fortran_order, aligned, writable;

  py::ssize_t size() const {
    py::ssize_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape()[i];
    return n;
  }
  const py::ssize_t* shape() const { return extents != nullptr ? extents : own_extents.data(); }
};

inline Array numpy_array(const py::array& array) {
  const int flags = array.flags();
  return {array.dtype(),
          const_cast<void*>(array.data()),
          static_cast<int>(array.ndim()),
          array.shape(),
          {},
          (flags & py::array::c_style) != 0,
          (flags & py::array::f_style) != 0,
          (flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0,
          array.writeable()};
}

inline void on_the_cpu(const Argument& arg) {
  if (arg.placement.cpu.empty()) arg.placement.cpu = arg.name;
}

Array cuda_array(const Argument& arg, const py::dict& interface);  // array_cuda.h

// NumPy arrays as they are; those on a CUDA device through their interface; whatever else speaks DLPack on the CPU
// (torch, jax, ...) zero-copy through numpy.from_dlpack.
inline Array as_array(const Argument& arg) {
  if (py::isinstance<py::array>(arg.value)) {
    on_the_cpu(arg);
    return numpy_array(py::reinterpret_borrow<py::array>(arg.value));
  }
  if (py::hasattr(arg.value, "__cuda_array_interface__")) {
    return cuda_array(arg, arg.value.attr("__cuda_array_interface__"));
  }
  if (py::hasattr(arg.value, "__dlpack__")) {
    try {
      py::object array = py::module_::import("numpy").attr("from_dlpack")(arg.value);
      arg.keep_alive.push_back(array);
      on_the_cpu(arg);
      return numpy_array(py::reinterpret_borrow<py::array>(array));
    } catch (py::error_already_set& error) {
      wrong_type(arg, "to be an array on the CPU",
                 type_name(arg.value) + " (" + std::string(py::str(error.value())) + ")");
    }
  }
  wrong_type(arg, "to be an array (NumPy, or one that speaks DLPack)", type_name(arg.value));
}

inline std::string dtype_text(const Array& array) { return py::str(array.dtype); }

inline bool matches(const Array& array, char kind, py::ssize_t itemsize) {
  return array.dtype.kind() == kind && array.dtype.itemsize() == itemsize && array.dtype.byteorder() != '>';
}

template <class T>
bool has_dtype(const Array& array) {
  using Value = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Value, float>) return matches(array, 'f', 4);
  if constexpr (std::is_same_v<Value, double>) return matches(array, 'f', 8);
  if constexpr (std::is_same_v<Value, std::int64_t>) return matches(array, 'i', 8);
  if constexpr (std::is_same_v<Value, std::uint64_t>) return matches(array, 'u', 8);
  if constexpr (std::is_same_v<Value, std::uint8_t>) return matches(array, 'u', 1) || matches(array, 'b', 1);
}

template <class T>
constexpr const char* dtype_name() {
  using Value = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Value, float>) return "float32";
  if constexpr (std::is_same_v<Value, double>) return "float64";
  if constexpr (std::is_same_v<Value, std::int64_t>) return "int64";
  if constexpr (std::is_same_v<Value, std::uint64_t>) return "uint64";
  if constexpr (std::is_same_v<Value, std::uint8_t>) return "uint8 or bool";
}

inline std::string shape_of(const Array& array) {
  std::vector<std::int64_t> shape(array.shape(), array.shape() + array.rank);
  if (shape.empty()) return "()";
  return check::shape_text(shape.data(), static_cast<int>(shape.size()));
}

inline void check_rank(const Argument& arg, const Array& array, int rank) {
  if (array.rank == rank) return;
  check::fail(arg.op, arg.name, "to have " + std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions"),
              "shape " + shape_of(array));
}

// Order, alignment and writability, common to every kind of View.
inline void check_layout(const Argument& arg, const Array& array, bool writable) {
  if (!array.c_order) {
    wrong_type(arg, "to be contiguous in C order (cure: numpy.ascontiguousarray)",
               array.fortran_order ? "Fortran order" : "a strided array");
  }
  if (!array.aligned) wrong_type(arg, "to be aligned to its elements (cure: .copy())", "an array at an odd address");
  if (writable && !array.writable) wrong_type(arg, "to be writable", "a read-only array");
}

inline std::string cure(const char* dtype) { return std::string(" (cure: .astype(numpy.") + dtype + "))"; }

template <class T>
void check_dtype(const Argument& arg, const Array& array) {
  if (has_dtype<T>(array)) return;
  const std::string name = dtype_name<T>();
  wrong_type(arg, "of dtype " + name + cure(name.substr(0, name.find(' ')).c_str()), dtype_text(array));
}

template <class T, int N>
void cast(const Argument& arg, View<T, N>& view) {
  const Array array = as_array(arg);
  check_dtype<T>(arg, array);
  check_rank(arg, array, N);
  check_layout(arg, array, !std::is_const_v<T>);
  view.data = static_cast<T*>(array.data);
  for (int i = 0; i < N; ++i) view.shape[i] = array.shape()[i];
}

// Describes the op, and does not say where it runs.
template <class T, int N>
void cast(const Argument& arg, HostView<T, N>& view) {
  if (!py::isinstance<py::array>(arg.value) && py::hasattr(arg.value, "__cuda_array_interface__")) {
    wrong_type(arg, "to be on the CPU, whatever the device of the other arrays",
               type_name(arg.value) + " on a CUDA device");
  }
  Placement of_its_own;
  cast(Argument{arg.op, arg.name, arg.value, arg.keep_alive, of_its_own}, static_cast<View<T, N>&>(view));
}

// A list or tuple of arrays of any shape, each flattened. The Views live as long as what else the call keeps alive.
template <class T>
void cast(const Argument& arg, VectorList<T>& list) {
  if (!PyList_Check(arg.value.ptr()) && !PyTuple_Check(arg.value.ptr())) {
    wrong_type(arg, "to be a list or tuple of arrays", type_name(arg.value));
  }
  const auto items = py::reinterpret_borrow<py::sequence>(arg.value);
  auto* views = new std::vector<Vector<T>>(items.size());
  arg.keep_alive.push_back(py::capsule(views, [](void* p) { delete static_cast<std::vector<Vector<T>>*>(p); }));
  for (std::size_t k = 0; k < views->size(); ++k) {
    const py::object item = items[k];
    arg.keep_alive.push_back(item);  // another thread may change the list while the kernel runs
    const std::string name = std::string(arg.name) + "[" + std::to_string(k) + "]";
    const Argument element{arg.op, name.c_str(), item, arg.keep_alive, arg.placement};
    const Array array = as_array(element);
    check_dtype<T>(element, array);
    check_layout(element, array, !std::is_const_v<T>);
    (*views)[k] = {static_cast<T*>(array.data), {array.size()}};
  }
  list = {views->data(), static_cast<std::int64_t>(views->size())};
}

template <class S>
void cast_states(const Argument& arg, S& states, bool writable) {
  const Array array = as_array(arg);
  if (has_dtype<std::uint8_t>(array)) {
    states.type = StateType::u8;
  } else if (has_dtype<float>(array)) {
    states.type = StateType::f32;
  } else {
    const bool real = array.dtype.kind() == 'f';  // whose values uint8 might not hold
    wrong_type(arg, "of dtype bool, uint8 or float32" + cure(real ? "float32" : "uint8"), dtype_text(array));
  }
  check_rank(arg, array, 2);
  check_layout(arg, array, writable);
  states.data = array.data;
  states.shape[0] = array.shape()[0];
  states.shape[1] = array.shape()[1];
}
inline void cast(const Argument& arg, ConstStates& states) { cast_states(arg, states, false); }
inline void cast(const Argument& arg, States& states) { cast_states(arg, states, true); }

// What None may not stand for: an array that is left out is one thing, a number another.
template <class T>
constexpr bool is_number = std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_same_v<T, Key>;

template <class T>
T number(const Argument& arg, const char* expected) {
  if (arg.value.is_none()) wrong_type(arg, expected, "None");  // which would be False
  try {
    return arg.value.cast<T>();
  } catch (const py::cast_error&) {
    wrong_type(arg, expected, std::string(py::repr(arg.value)));
  }
}
inline void cast(const Argument& arg, std::int64_t& value) { value = number<std::int64_t>(arg, "to be an integer"); }
inline void cast(const Argument& arg, float& value) { value = number<float>(arg, "to be a number"); }
inline void cast(const Argument& arg, double& value) { value = number<double>(arg, "to be a number"); }
inline void cast(const Argument& arg, bool& value) { value = number<bool>(arg, "to be True or False"); }
inline void cast(const Argument& arg, Key& value) {
  value = make_key(number<std::uint64_t>(arg, "to be an integer from 0 to 2^64 - 1"));
}
template <class E>
std::enable_if_t<std::is_enum_v<E>> cast(const Argument& arg, E& value) {
  value = static_cast<E>(number<std::int32_t>(arg, "to be an integer"));
}

// How each argument reads in the typed stub.
template <class T, int N>
std::string annotation(const View<T, N>&) {
  return "Array";
}
template <class T>
std::string annotation(const VectorList<T>&) {
  return "Arrays";
}
inline std::string annotation(const ConstStates&) { return "Array"; }
inline std::string annotation(const States&) { return "Array"; }
inline std::string annotation(std::int64_t) { return "int"; }
inline std::string annotation(float) { return "float"; }
inline std::string annotation(double) { return "float"; }
inline std::string annotation(bool) { return "bool"; }
inline std::string annotation(const Key&) { return "int"; }
template <class E>
std::enable_if_t<std::is_enum_v<E>, std::string> annotation(E) {
  return "int";
}

}  // namespace gencore::python
