// The extension module: one generic binder turns each op struct into a function of keyword arguments.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "array.h"
#include "array_cuda.h"
#include "fingerprint.h"
#include "memory.h"

namespace gencore::python {
namespace {

// rbm.gibbs_chain -> rbm_gibbs_chain
std::string function_name(const char* op) {
  std::string name = op;
  for (char& c : name) c = c == '.' ? '_' : c;
  return name;
}

// Python's own calling convention for keywords, without a dictionary or an argument tuple: small products are called
// so often that the way in must not cost more than they do.
template <class Op>
struct Binding {
  static inline std::vector<PyObject*> names;  // interned: a caller's keyword is nearly always the same object
  static inline std::string function;
  static inline PyMethodDef method{};

  static PyObject* find(const PyObject* field, PyObject* const* values, PyObject* keywords) {
    const Py_ssize_t n = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t i = 0; i < n; ++i) {
      if (PyTuple_GET_ITEM(keywords, i) == field) return values[i];
    }
    for (Py_ssize_t i = 0; i < n; ++i) {
      if (PyUnicode_Compare(PyTuple_GET_ITEM(keywords, i), const_cast<PyObject*>(field)) == 0) return values[i];
    }
    return nullptr;
  }

  static void reject_unknown(PyObject* keywords) {
    for (const py::handle keyword : py::reinterpret_borrow<py::tuple>(keywords)) {
      bool known = false;
      Op::fields([&](const char* name, auto) { known = known || py::str(keyword).equal(py::str(name)); });
      if (!known) throw TypeError(std::string(Op::name) + ": has no argument " + std::string(py::str(keyword)));
    }
  }

  static void call_unguarded(PyObject* const* values, Py_ssize_t positional, PyObject* keywords) {
    if (positional != 0) throw TypeError(std::string(Op::name) + ": takes keyword arguments only");
    Op op;
    std::vector<py::object> keep_alive;
    Placement placement;
    Py_ssize_t used = 0;
    std::size_t field = 0;
    Op::fields([&](const char* name, auto member) {
      const py::handle value = find(names[field++], values, keywords);
      if (!value) return;
      ++used;
      if (value.is_none() && !is_number<std::remove_reference_t<decltype(op.*member)>>) return;
      cast(Argument{Op::name, name, value, keep_alive, placement}, op.*member);
    });
    if (keywords != nullptr && used != PyTuple_GET_SIZE(keywords)) reject_unknown(keywords);
    if (!placement.cuda.empty()) place(Op::name, placement, op);
    const py::gil_scoped_release released;
    run(op);
  }

  static PyObject* call(PyObject*, PyObject* const* values, Py_ssize_t positional, PyObject* keywords) {
    try {
      call_unguarded(values, positional, keywords);
      Py_RETURN_NONE;
    } catch (const TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    } catch (const Error& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    } catch (py::error_already_set& e) {
      e.restore();
    } catch (const std::bad_alloc&) {
      PyErr_NoMemory();
    } catch (const std::exception& e) {
      PyErr_SetString(PyExc_RuntimeError, e.what());
    }
    return nullptr;
  }
};

template <class Op>
void bind(py::module_& m, py::dict& signatures) {
  using B = Binding<Op>;
  B::function = function_name(Op::name);
  py::dict arguments;
  Op::fields([&](const char* name, auto member) {
    B::names.push_back(PyUnicode_InternFromString(name));
    arguments[name] = annotation(Op{}.*member);
  });
  // Through void*: the convention is told by the flags.
  B::method = {B::function.c_str(), reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&B::call)),
               METH_FASTCALL | METH_KEYWORDS, nullptr};
  m.attr(B::function.c_str()) = py::reinterpret_steal<py::object>(
      PyCFunction_NewEx(&B::method, nullptr, m.attr("__name__").ptr()));
  signatures[B::function.c_str()] = arguments;
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
#define family conv
  GENCORE_CONV_OPS(X)
  GENCORE_PIXELS_OPS(X)
#undef family
#define family optim
  GENCORE_OPTIM_OPS(X)
#undef family
#define family autoregressive
  GENCORE_AUTOREGRESSIVE_OPS(X)
#undef family
#define family recurrent
  GENCORE_RECURRENT_OPS(X)
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

  m.def("fingerprint", &python::fingerprint, py::arg("array"));
  py::class_<python::Memory>(m, "Memory");
  m.def("empty", &python::empty, py::arg("shape"), py::arg("dtype"));

  num_threads();  // a bad GENCORE_NUM_THREADS or GENCORE_ISA is reported on import, not in the middle of a run
  isa();
}
