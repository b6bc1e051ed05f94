// The CUDA kernels (target gencore::cuda, library libgencore_cuda): the same ops on device memory.
//
// An op runs on the device and stream that it names: op.device = {DeviceKind::cuda, index}; op.stream = stream (null: the
// legacy default stream). run(op) returns when the kernels are queued and never waits for them; a launch that fails throws
// std::runtime_error with CUDA's own words. What the CPU finds out about the values of an input is not found out here:
// each op says what it does with them.
#pragma once

#include <string>

#include "gencore/view.h"

namespace gencore::cuda {

// Makes ops with a CUDA device find their kernels; to be called once, before the first. Needs no device.
GENCORE_API void load();

// Devices that can be used; 0 where there is no driver.
GENCORE_API int device_count();

// One line: toolkit, driver, devices by name, or why there are none.
GENCORE_API std::string describe();

}  // namespace gencore::cuda
