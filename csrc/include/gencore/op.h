// The shape of every op: a plain struct of Views and numbers, check() that states each relation between them, and
// run(op), which checks once, picks the table of the running ISA level (or of the device) and calls the kernel.
//
// fields(f) calls f(name, &Op::member) for each argument; the Python binding, the typed stub and the tests are
// generated from it.
#pragma once

#include "gencore/error.h"
#include "gencore/random.h"
#include "gencore/view.h"

namespace gencore {

struct OpBase {
  Device device{};
  void* stream = nullptr;  // the CUDA stream to launch on; unused on the CPU

  // Whether check() may look at elements. A device's would have to be waited for: there, wrong ones are no error.
  bool readable() const { return device.kind == DeviceKind::cpu; }
};

}  // namespace gencore
