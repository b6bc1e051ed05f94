// Errors of a wrong call, and the checks that raise them. A bug in gencore is an assertion, never one of these.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "gencore/view.h"

namespace gencore {

// A wrong value or shape (Python: ValueError).
class GENCORE_API Error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// A wrong kind of array: dtype, device, memory order, read-only (Python: TypeError).
class GENCORE_API TypeError : public Error {
 public:
  using Error::Error;
};

namespace check {

// `op: expected ARG WHAT, received GOT`
[[noreturn]] GENCORE_API void fail(const char* op, const char* arg, const std::string& expected,
                                   const std::string& received);
std::string number_text(double x);
GENCORE_API std::string shape_text(const std::int64_t* shape, int rank);
GENCORE_API void shape(const char* op, const char* arg, const std::int64_t* actual, int rank,
                       std::initializer_list<std::int64_t> expected, const char* because);

template <class T, int N>
void shape(const char* op, const char* arg, const View<T, N>& view, std::initializer_list<std::int64_t> expected,
           const char* because) {
  shape(op, arg, view.shape, N, expected, because);
}
inline void shape(const char* op, const char* arg, const ConstStates& s, std::initializer_list<std::int64_t> expected,
                  const char* because) {
  shape(op, arg, s.shape, 2, expected, because);
}
template <class V>
void given(const char* op, const char* arg, const V& view) {
  if (!view.given()) fail(op, arg, "to be given", "nothing");
}
// A list with as many arrays as `like` has, each of the same size.
GENCORE_API void list_count(const char* op, const char* arg, std::int64_t actual, const char* like_arg,
                            std::int64_t expected);
GENCORE_API void list_size(const char* op, const char* arg, std::int64_t k, std::int64_t actual, const char* like_arg,
                           std::int64_t expected);
template <class List, class Like>
void like(const char* op, const char* arg, const List& list, const char* like_arg, const Like& like) {
  given(op, arg, list);
  list_count(op, arg, list.count, like_arg, like.count);
  for (std::int64_t k = 0; k < list.count; ++k) list_size(op, arg, k, list[k].size(), like_arg, like[k].size());
}
// First byte of an array, and the one behind its last.
template <class T, int N>
std::uintptr_t begin_of(const View<T, N>& view) {
  return reinterpret_cast<std::uintptr_t>(view.data);
}
template <class T, int N>
std::uintptr_t end_of(const View<T, N>& view) {
  return reinterpret_cast<std::uintptr_t>(view.data + view.size());
}
inline std::uintptr_t begin_of(const ConstStates& s) { return reinterpret_cast<std::uintptr_t>(s.data); }
inline std::uintptr_t end_of(const ConstStates& s) {
  return begin_of(s) + static_cast<std::uintptr_t>(s.size() * (s.type == StateType::u8 ? 1 : 4));
}
// An output that is written while the input is still read.
template <class Out, class In>
void apart(const char* op, const char* out_arg, const Out& out, const char* in_arg, const In& in) {
  if (begin_of(out) < end_of(in) && begin_of(in) < end_of(out)) {
    fail(op, out_arg, std::string("to share no memory with ") + in_arg, "an overlapping array");
  }
}
GENCORE_API void at_least(const char* op, const char* arg, std::int64_t value, std::int64_t least);
GENCORE_API void in_range(const char* op, const char* arg, std::int64_t value, std::int64_t least, std::int64_t most);
GENCORE_API void finite(const char* op, const char* arg, double value);
// Above 0 and finite.
GENCORE_API void positive(const char* op, const char* arg, double value);
// Every element finite; names the first that is not.
GENCORE_API void finite(const char* op, const char* arg, const float* data, std::int64_t n);

}  // namespace check
}  // namespace gencore
