// For each path on standard input prints one line: "error MESSAGE", or "ok" and what every accessor says of every tensor:
// NAME, then its shape and its bytes in hexadecimal through the one accessor that takes it, or "-" where none does.
// Anything but gencore::Error ends the program.
#include <gencore/gencore.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>

template <class View>
static std::string text_of(const View& view, int rank) {
  std::string text;
  std::int64_t size = 1;
  for (int i = 0; i < rank; ++i) {
    text += (i == 0 ? "" : "x") + std::to_string(view.shape[i]);
    size *= view.shape[i];
  }
  text += ":";
  const auto* bytes = reinterpret_cast<const unsigned char*>(view.data);
  for (std::size_t i = 0; i < static_cast<std::size_t>(size) * sizeof(*view.data); ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", bytes[i]);
    text += digits;
  }
  return text;
}

template <class Read>
static void attempt(std::string& text, Read&& read) {
  try {
    text += read();
  } catch (const gencore::Error&) {
  }
}

int main() {
  for (std::string path; std::getline(std::cin, path);) {
    std::string line;
    try {
      const auto file = gencore::ModelFile::read(path);
      line = "ok";
      for (const std::string& name : file.names()) {
        std::string content;
        attempt(content, [&] { return text_of(file.vector(name), 1); });
        attempt(content, [&] { return text_of(file.matrix(name), 2); });
        attempt(content, [&] { return text_of(file.states(name), 2); });
        line += " " + name + "=" + (content.empty() ? "-" : content);
      }
    } catch (const gencore::Error& error) {
      line = std::string("error ") + error.what();
    }
    std::replace(line.begin(), line.end(), '\n', ' ');  // a name or key may hold one
    std::cout << line << '\n';
  }
}
