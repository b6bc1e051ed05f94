// Reads model files: safetensors (8 bytes of little-endian header length, a JSON header, the tensors' bytes), as strictly
// as the format's own library. Whatever is wrong becomes an Error that names the file; memory is asked for only after the
// file has been found to hold as much.
#include "gencore/model_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

namespace gencore {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and read as they are");

constexpr std::uint64_t max_header = 100'000'000;  // the format's own limit
constexpr std::size_t max_rank = 64;               // NumPy's

struct Entry {
  std::string name;
  StoredTensor tensor;
  std::uint64_t begin = 0, end = 0;
};

struct Header {
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
};

std::string quote(std::string_view text) { return std::string(1, '\'').append(text).append(1, '\''); }

int utf8_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) return 2;
  if (lead >= 0xE0 && lead < 0xF0) return 3;
  return lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
}

void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

// The part of JSON that a header may hold: objects of strings, of arrays of integers, or of one more such object. It is
// read as it comes, without a tree, so that a hostile header can ask for neither depth nor memory.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  Header parse() {
    Header header;
    object("the header", [&](std::string&& name) {
      if (name == "__metadata__") {
        object("__metadata__", [&](std::string&& key) {
          std::string value = string();
          header.metadata.emplace(std::move(key), std::move(value));
        });
      } else {
        header.entries.push_back(entry(std::move(name)));
      }
    });
    if (!at_end()) fail("text after the header's closing brace");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("ModelFile: " + path_ + ": malformed header: " + what + " at byte " + std::to_string(at_));
  }

  bool at_end() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
    return at_ == text_.size();
  }
  // The next character that is not a blank; it is taken if it is `wanted`.
  bool take(char wanted) {
    if (at_end() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fail(std::string("expected '") + wanted + "'");
  }

  // {"key": VALUE, ...}; member(key) reads the value. A key may come once.
  template <class Member>
  void object(const char* what, Member&& member) {
    std::set<std::string> seen;
    expect('{');
    if (take('}')) return;
    do {
      std::string key = string();
      if (!seen.insert(key).second) fail("a second " + quote(key) + " in " + what);
      expect(':');
      member(std::move(key));
    } while (take(','));
    expect('}');
  }

  Entry entry(std::string name) {
    Entry e;
    bool dtype = false, shape = false, offsets = false;
    object("a tensor's description", [&](std::string&& key) {
      if (key == "dtype") {
        e.tensor.dtype = string();
        dtype = true;
      } else if (key == "shape") {
        for (const std::uint64_t n : integers()) e.tensor.shape.push_back(static_cast<std::int64_t>(n));
        shape = true;
      } else if (key == "data_offsets") {
        const std::vector<std::uint64_t> range = integers();
        if (range.size() != 2) fail("data_offsets of tensor " + quote(name) + " are not two numbers");
        e.begin = range[0];
        e.end = range[1];
        offsets = true;
      } else {
        fail("unknown field " + quote(key) + " of tensor " + quote(name));
      }
    });
    if (!dtype || !shape || !offsets) {
      fail("tensor " + quote(name) + " has no " + (!dtype ? "dtype" : !shape ? "shape" : "data_offsets"));
    }
    e.name = std::move(name);
    return e;
  }

  std::vector<std::uint64_t> integers() {
    std::vector<std::uint64_t> values;
    expect('[');
    if (take(']')) return values;
    do {
      if (values.size() == max_rank) fail("an array of more than " + std::to_string(max_rank) + " numbers");
      values.push_back(integer());
    } while (take(','));
    expect(']');
    return values;
  }

  // A plain count below 2^63.
  std::uint64_t integer() {
    const auto digit = [this] { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; };
    if (at_end() || !digit()) fail("expected a non-negative integer");
    const std::size_t begin = at_;
    std::uint64_t value = 0;
    for (; digit(); ++at_) {
      const auto units = static_cast<std::uint64_t>(text_[at_] - '0');
      if (value > (std::uint64_t{INT64_MAX} - units) / 10) fail("a number that is too large");
      value = 10 * value + units;
    }
    if (text_[begin] == '0' && at_ > begin + 1) fail("a number that begins with 0");
    if (at_ < text_.size() && std::strchr(".eE", text_[at_]) != nullptr) fail("a number that is not an integer");
    return value;
  }

  std::string string() {
    expect('"');
    std::string value;
    for (;;) {
      if (at_ == text_.size()) fail("a string without an end");
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c < 0x20) fail("a control character in a string");
      if (c == '"') {
        ++at_;
        return value;
      }
      if (c == '\\') {
        ++at_;
        escape(value);
      } else {
        utf8(value);
      }
    }
  }

  void escape(std::string& value) {
    if (at_ == text_.size()) fail("a string without an end");
    constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char c = text_[at_++];
    if (const std::size_t i = letters.find(c); i != std::string_view::npos) {
      value += meanings[i];
      return;
    }
    if (c != 'u') fail("an unknown escape");
    std::uint32_t code = four_digits();
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") fail("half of a surrogate pair");
      at_ += 2;
      const std::uint32_t low = four_digits();
      if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      fail("half of a surrogate pair");
    }
    append_utf8(value, code);
  }

  std::uint32_t four_digits() {
    constexpr std::string_view digits = "0123456789abcdef0123456789ABCDEF";
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const std::size_t digit = at_ < text_.size() ? digits.find(text_[at_]) : std::string_view::npos;
      if (digit == std::string_view::npos) fail("\\u without four hexadecimal digits");
      code = code << 4 | (digit & 15);
    }
    return code;
  }

  // One character as it stands, if it is well-formed: no overlong form, no surrogate, nothing beyond U+10FFFF.
  void utf8(std::string& value) {
    const auto byte = [this](std::size_t i) { return static_cast<unsigned char>(text_[at_ + i]); };
    const auto length = static_cast<std::size_t>(utf8_length(byte(0)));
    bool valid = length > 0 && at_ + length <= text_.size();
    for (std::size_t i = 1; valid && i < length; ++i) valid = (byte(i) & 0xC0) == 0x80;
    if (valid && length >= 3) {
      const int start = byte(0) << 8 | byte(1);
      valid = start >= 0xE0A0 && !(start >= 0xEDA0 && start <= 0xEDBF) && !(start >= 0xF000 && start < 0xF090) &&
              start < 0xF490;
    }
    if (!valid) fail("a string that is not UTF-8");
    value.append(text_, at_, length);
    at_ += length;
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
};

// Bytes of an element, 0 for a type we do not know.
std::uint64_t element_size(const std::string& dtype) {
  static constexpr struct {
    const char* name;
    std::uint64_t size;
  } types[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
               {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  for (const auto& type : types) {
    if (dtype == type.name) return type.size;
  }
  return 0;
}

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error("ModelFile: " + path + ": " + what);
}

std::string shape_of(const StoredTensor& t) {
  return t.shape.empty() ? "()" : check::shape_text(t.shape.data(), static_cast<int>(t.shape.size()));
}

// The tensors must fill the rest of the file, one behind the other, each as large as its type and shape say.
void check_layout(const std::string& path, std::vector<Entry>& entries, std::uint64_t data_bytes) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  std::uint64_t used = 0;
  for (const Entry& e : entries) {
    const std::string tensor = "tensor " + quote(e.name);
    std::uint64_t bytes = element_size(e.tensor.dtype);
    if (bytes == 0) fail(path, tensor + " has the unknown dtype " + quote(e.tensor.dtype));
    bool overflow = false;
    for (const std::int64_t n : e.tensor.shape) {
      overflow = __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(n), &bytes) || overflow;
    }
    const std::string where = " (bytes " + std::to_string(e.begin) + " to " + std::to_string(e.end) + ")";
    if (e.end < e.begin || e.end > data_bytes) {
      fail(path,
           tensor + where + " lies outside the " + std::to_string(data_bytes) + " bytes of data: is the file cut off?");
    }
    if (e.begin != used)
      fail(path, tensor + where + (e.begin < used ? " overlaps another" : " leaves a gap before it"));
    if (overflow || bytes != e.end - e.begin) {
      fail(path, tensor + where + " is not as large as " + e.tensor.dtype + " of shape " + shape_of(e.tensor));
    }
    used = e.end;
  }
  if (used != data_bytes) fail(path, std::to_string(data_bytes - used) + " bytes of data belong to no tensor");
}

template <class Map>
std::string keys_of(const Map& map) {
  std::string text;
  for (const auto& item : map) text += (text.empty() ? "" : ", ") + item.first;
  return text.empty() ? "none" : text;
}

}  // namespace

ModelFile ModelFile::read(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    fail(path, error ? "cannot be read: " + error.message() : "is not a file");
  }
  const std::uint64_t size = std::filesystem::file_size(path, error);
  std::ifstream stream(path, std::ios::binary);
  const auto read_bytes = [&](void* to, std::uint64_t n) {
    if (!stream.read(static_cast<char*>(to), static_cast<std::streamsize>(n))) fail(path, "cannot be read to its end");
  };
  if (error || !stream) fail(path, "cannot be opened for reading");
  if (size < 8) fail(path, "is not a safetensors file: it has " + std::to_string(size) + " bytes");
  unsigned char length_bytes[8];
  read_bytes(length_bytes, 8);
  std::uint64_t length = 0;
  for (int i = 8; i-- > 0;) length = length << 8 | length_bytes[i];
  if (length > size - 8) {
    fail(path, "is cut off or not a safetensors file: it has " + std::to_string(size) +
                   " bytes and announces a header of " + std::to_string(length));
  }
  if (length > max_header)
    fail(path, "announces a header of " + std::to_string(length) + " bytes, more than the format allows");
  std::string text(length, '\0');
  read_bytes(text.data(), length);
  if (text.empty() || text[0] != '{') fail(path, "is not a safetensors file: its header does not begin with '{'");

  Header header = HeaderParser(text, path).parse();
  check_layout(path, header.entries, size - 8 - length);
  ModelFile file;
  file.path_ = path;
  file.metadata_ = std::move(header.metadata);
  if (const auto format = file.metadata_.find("format");
      format == file.metadata_.end() || format->second != "gencore") {
    fail(path, "is a safetensors file, but gencore did not write it as a model (its metadata: " +
                   keys_of(file.metadata_) + ")");
  }
  if (file.metadata("format_version") != "1") {
    fail(path, "has format version " + quote(file.metadata("format_version")) + "; this gencore reads version '1'");
  }
  for (Entry& e : header.entries) {  // in the order in which they lie in the file
    e.tensor.bytes.resize(e.end - e.begin);
    read_bytes(e.tensor.bytes.data(), e.end - e.begin);
    file.tensors_.emplace(std::move(e.name), std::move(e.tensor));
  }
  return file;
}

std::vector<std::string> ModelFile::names() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const auto& item : tensors_) names.push_back(item.first);
  return names;
}

const std::string& ModelFile::metadata(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) fail(path_, "has no metadata " + quote(key) + " (it has: " + keys_of(metadata_) + ")");
  return found->second;
}

const StoredTensor& ModelFile::find(const std::string& name, const char* dtype, std::size_t rank) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail(path_, "has no tensor " + quote(name) + " (it has: " + keys_of(tensors_) + ")");
  const StoredTensor& tensor = found->second;
  if (tensor.dtype != dtype || tensor.shape.size() != rank) {
    fail(path_, "expected tensor " + quote(name) + " to be " + dtype + " with " + std::to_string(rank) +
                    (rank == 1 ? " dimension" : " dimensions") + ", received " + tensor.dtype + " of shape " +
                    shape_of(tensor));
  }
  return tensor;
}

Vector<const float> ModelFile::vector(const std::string& name) const {
  const StoredTensor& t = find(name, "F32", 1);
  return {reinterpret_cast<const float*>(t.bytes.data()), {t.shape[0]}};
}

Matrix<const float> ModelFile::matrix(const std::string& name) const {
  const StoredTensor& t = find(name, "F32", 2);
  return {reinterpret_cast<const float*>(t.bytes.data()), {t.shape[0], t.shape[1]}};
}

Matrix<const std::uint8_t> ModelFile::states(const std::string& name) const {
  const StoredTensor& t = find(name, "U8", 2);
  return {t.bytes.data(), {t.shape[0], t.shape[1]}};
}

}  // namespace gencore
