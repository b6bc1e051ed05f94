// Where an op that draws finds its random numbers: the fields that all of them have.
#pragma once

#include "gencore/op.h"

namespace gencore::sample {

struct Coordinates : OpBase {
  Key key{};
  std::int64_t first_row = 0, step = 0;

  template <class Op, class F>
  static void coordinate_fields(F&& f) {
    f("key", &Op::key);
    f("first_row", &Op::first_row);
    f("step", &Op::step);
  }
  void check_coordinates(const char* op, std::int64_t rows) const;
  // Of ops whose random numbers lie in the flat layout.
  void check_coordinates(const char* op, std::int64_t rows, std::int64_t columns) const;
};

inline void Coordinates::check_coordinates(const char* op, std::int64_t rows) const {
  check::in_range(op, "first_row", first_row, 0, (std::int64_t{1} << 32) - (rows > 0 ? rows : 1));
  check::in_range(op, "step", step, 0, max_step);
}

inline void Coordinates::check_coordinates(const char* op, std::int64_t rows, std::int64_t columns) const {
  check_coordinates(op, rows);
  check::in_range(op, "the number of columns", columns, 0, philox::flat_units);
}

}  // namespace gencore::sample
