// The extension module: one generic binder turns each op struct into a function of keyword arguments.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "array.h"

namespace gencore::python {
namespace {

// rbm.gibbs_chain -> rbm_gibbs_chain
std::string function_name(const char* op) {
  std::string name = op;
  for (char& c : name) c = c == '.' ? '_' : c;
  return name;
}

template <class Op>
void call(const py::kwargs& kwargs) {
  Op op;
  std::vector<py::object> keep_alive;
  std::size_t used = 0;
  Op::fields([&](const char* name, auto member) {
    const py::handle value = PyDict_GetItemString(kwargs.ptr(), name);
    if (!value) return;
    ++used;
    if (!value.is_none()) cast(Argument{Op::name, name, value, keep_alive}, op.*member);
  });
  if (used != kwargs.size()) {
    for (const auto& item : kwargs) {
      bool known = false;
      Op::fields([&](const char* name, auto) { known = known || py::str(item.first).equal(py::str(name)); });
      if (!known) throw TypeError(std::string(Op::name) + ": has no argument " + std::string(py::str(item.first)));
    }
  }
  const py::gil_scoped_release released;
  run(op);
}

template <class Op>
void bind(py::module_& m, py::dict& signatures) {
  const std::string name = function_name(Op::name);
  m.def(name.c_str(), &call<Op>);
  py::dict arguments;
  Op::fields([&](const char* field, auto member) { arguments[field] = annotation(Op{}.*member); });
  signatures[name.c_str()] = arguments;
}

}  // namespace
}  // namespace gencore::python

PYBIND11_MODULE(_core, m) {
  namespace py = pybind11;
  using namespace gencore;
  m.doc() = "Compiled kernels. Use gencore.kernels, which documents each of them.";

  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    } catch (const Error& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    }
  });

  py::dict signatures;
#define X(Op) python::bind<family::Op>(m, signatures);
#define family dense
  GENCORE_DENSE_OPS(X)
#undef family
#define family sample
  GENCORE_SAMPLE_OPS(X)
#undef family
#define family rbm
  GENCORE_RBM_OPS(X)
#undef family
#define family optim
  GENCORE_OPTIM_OPS(X)
#undef family
#undef X
  m.attr("signatures") = signatures;

  m.def("version", &version);
  m.def("isa", &isa);
  m.def("isa_levels", &isa_levels);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("release_scratch", &release_scratch);
  m.def("measure_fma_peak", &measure_fma_peak, py::arg("seconds"), py::call_guard<py::gil_scoped_release>());
  m.def("philox", [](std::uint64_t key, std::array<std::uint32_t, 4> counter) {
    const auto out = philox::block(make_key(key), counter[0], counter[1], counter[2], counter[3]);
    return std::array<std::uint32_t, 4>{out.word[0], out.word[1], out.word[2], out.word[3]};
  }, py::arg("key"), py::arg("counter"));

  num_threads();  // a bad GENCORE_NUM_THREADS or GENCORE_ISA is reported on import, not in the middle of a run
  isa();
}
