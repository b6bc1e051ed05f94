// Arrays on a CUDA device, by version 3 of __cuda_array_interface__ (CuPy, PyTorch, Numba): the CUDA kernels are loaded
// when the first of them arrives, and all arrays of a call must be on one device.
#pragma once

#include "array.h"

namespace gencore::python {

inline void load_cuda(const Argument& arg) {
  if (cuda_loaded()) return;
  try {
    py::module_::import("gencore._cuda_support").attr("load")();
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_ImportError)) throw;
    wrong_type(arg, "to be on the CPU: the CUDA kernels are not built (cure: GENCORE_CUDA=1 pip install .)",
               type_name(arg.value) + " on a CUDA device");
  }
}

// Strides of None are C order; an extent of 1 may have any, and so may all of an array without elements.
inline void read_order(const py::dict& interface, Array& array) {
  array.c_order = array.fortran_order = true;
  const py::object strides = interface.contains("strides") ? py::object(interface["strides"]) : py::none();
  if (strides.is_none()) {
    array.fortran_order = array.rank < 2;
    return;
  }
  const auto steps = strides.cast<std::vector<py::ssize_t>>();
  const auto follows = [&](bool backward) {
    py::ssize_t step = array.dtype.itemsize();
    for (int j = 0; j < array.rank; ++j) {
      const auto i = static_cast<std::size_t>(backward ? array.rank - 1 - j : j);
      if (array.own_extents[i] == 0) return true;
      if (array.own_extents[i] != 1 && steps[i] != step) return false;
      step *= array.own_extents[i];
    }
    return true;
  };
  array.c_order = follows(true);
  array.fortran_order = follows(false);
}

inline void note_device(const Argument& arg, const py::dict& interface, const void* data) {
  Placement& p = arg.placement;
  const int device = data == nullptr ? -1 : cuda_device_of(data);  // an array without elements is on any
  if (p.cuda.empty()) {
    const py::object stream = interface.contains("stream") ? py::object(interface["stream"]) : py::none();
    const py::object number = py::module_::import("gencore._cuda_support").attr("stream_of")(arg.value, stream);
    p.cuda = arg.name;
    p.stream = reinterpret_cast<void*>(number.cast<std::uintptr_t>());
  } else if (device >= 0 && p.device >= 0 && device != p.device) {
    wrong_type(arg, "on CUDA device " + std::to_string(p.device) + ", as " + p.cuda,
               "an array on CUDA device " + std::to_string(device));
  }
  if (p.device < 0) p.device = device;
}

inline Array cuda_array(const Argument& arg, const py::dict& interface) {
  load_cuda(arg);
  const bool masked = interface.contains("mask") && !py::object(interface["mask"]).is_none();
  if (masked) wrong_type(arg, "to be an array without a mask", "a masked array");
  const auto memory = interface["data"].cast<std::pair<std::uintptr_t, bool>>();
  Array array{};
  array.dtype = py::dtype::from_args(interface["typestr"]);
  array.own_extents = interface["shape"].cast<std::vector<py::ssize_t>>();
  array.rank = static_cast<int>(array.own_extents.size());
  array.data = reinterpret_cast<void*>(memory.first);
  array.writable = !memory.second;
  array.aligned = memory.first % static_cast<std::uintptr_t>(array.dtype.alignment()) == 0;
  read_order(interface, array);
  note_device(arg, interface, array.data);
  return array;
}

// The device and stream of a call; an error where some of its arrays are on the CPU.
inline void place(const char* op, const Placement& p, OpBase& base) {
  if (!p.cpu.empty()) {
    throw TypeError(std::string(op) + ": expected all arrays on one device, received " + p.cpu + " on the CPU and " +
                    p.cuda + " on a CUDA device");
  }
  base.device = {DeviceKind::cuda, p.device};
  base.stream = p.stream;
}

}  // namespace gencore::python
