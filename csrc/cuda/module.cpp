// The Python module gencore._cuda: three functions, in CPython's own interface.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <exception>

#include "gencore/cuda.h"

namespace {

template <class Body>
PyObject* guarded(const Body& body) {
  try {
    return body();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_RuntimeError, e.what());
    return nullptr;
  }
}

PyObject* load(PyObject*, PyObject*) {
  return guarded([] {
    gencore::cuda::load();
    Py_RETURN_NONE;
  });
}

PyObject* device_count(PyObject*, PyObject*) {
  return guarded([] { return PyLong_FromLong(gencore::cuda::device_count()); });
}

PyObject* describe(PyObject*, PyObject*) {
  return guarded([] { return PyUnicode_FromString(gencore::cuda::describe().c_str()); });
}

PyMethodDef methods[] = {
    {"load", load, METH_NOARGS, "load() -> None: ops on arrays of a CUDA device find these kernels."},
    {"device_count", device_count, METH_NOARGS, "device_count() -> int: 0 without a driver."},
    {"describe", describe, METH_NOARGS, "describe() -> str: toolkit, driver and devices in one line."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT,
                      "_cuda",
                      "CUDA kernels: see gencore._cuda_support.",
                      -1,
                      methods,
                      nullptr,
                      nullptr,
                      nullptr,
                      nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cuda() { return PyModule_Create(&module); }
