#include "core/gguf.hpp"

#include <algorithm>
#include <bit>
#include <cctype>
#include <limits>
#include <set>

#include "base/units.hpp"
#include "core/gguf_cursor.hpp"

namespace aiv {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

// Value types of the format (ggml/include/gguf.h).
enum ValueType : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kValueTypes
};

// Bytes of one element, 0 for those of varying length.
constexpr std::uint64_t kValueBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr std::uint64_t kKeyBytesMin = 8 + 4 + 1;         // length, type, one byte of value
constexpr std::uint64_t kTensorBytesMin = 8 + 4 + 4 + 8;  // length, n_dims, type, offset
constexpr std::uint64_t kTensorNameBytesMax = 63;         // GGML_MAX_NAME 64, with the end

bool is_float(std::uint32_t type) {
  return type == kF32 || type == kF64;
}

class HeaderReader {
 public:
  explicit HeaderReader(ByteSource& source) : cursor_(source, kGgufHeaderBytesMax) {
    header_.file_bytes = source.size();
  }

  Result<GgufHeader> run(bool first_part) {
    if (!counts() || !metadata() || !known_keys(first_part) || !tensors() || !data_section()) {
      return std::unexpected(cursor_.error());
    }
    return std::move(header_);
  }

 private:
  bool corrupt(std::string reason) { return cursor_.fail_here(ErrorCode::kCorrupt, std::move(reason)); }

  bool byte_swapped() {
    return cursor_.fail_here(
        ErrorCode::kInvalidArgument,
        "the file is byte-swapped (big endian): convert it on the machine it was made on");
  }

  bool counts() {
    cursor_.field("file");
    if (header_.file_bytes > kGgufFileBytesMax)
      return cursor_.fail_here(ErrorCode::kTooLarge, "is larger than 64 TiB");
    cursor_.field("magic");
    std::uint32_t magic = 0;
    if (!cursor_.number(magic)) return false;
    if (magic == 0x47475546)
      return cursor_.fail_here(
          ErrorCode::kInvalidArgument,
          "the file is byte-swapped (big endian): convert it on the machine it was made on");
    if (magic != 0x46554747) return corrupt("not a GGUF file: it does not begin with \"GGUF\"");
    cursor_.field("version");
    if (!cursor_.number(header_.version)) return false;
    if (header_.version != 0 && (header_.version & 0xffff) == 0) {
      return cursor_.fail_here(
          ErrorCode::kInvalidArgument,
          "the file is byte-swapped (big endian): convert it on the machine it was made on");
    }
    if (header_.version != 2 && header_.version != 3) {
      return cursor_.fail_here(ErrorCode::kInvalidArgument,
                               "GGUF version " + std::to_string(header_.version) +
                                   " is not supported (2 and 3 are): convert the model again");
    }
    return count("tensor count", kTensorBytesMin, kGgufTensorsMax, tensor_count_) &&
           count("key count", kKeyBytesMin, kGgufKeysMax, key_count_);
  }

  bool count(std::string_view name, std::uint64_t bytes_min, std::uint64_t max, std::uint64_t& out) {
    cursor_.field(name);
    if (!cursor_.number(out)) return false;
    if (out > cursor_.left() / bytes_min) {
      return corrupt("claims " + std::to_string(out) + " entries, more than the rest of the file can hold");
    }
    if (out > max) {
      return cursor_.fail_here(ErrorCode::kTooLarge,
                               std::to_string(out) + " entries are over the bound of " + std::to_string(max));
    }
    return true;
  }

  // A length followed by text. Bounded by `max` bytes.
  bool string(std::string& out, std::uint64_t max) {
    std::uint64_t bytes = 0;
    if (!cursor_.number(bytes)) return false;
    if (bytes > cursor_.left())
      return corrupt("a text of " + std::to_string(bytes) + " bytes is longer than the rest of the file");
    if (bytes > max)
      return cursor_.fail_here(
          ErrorCode::kTooLarge,
          "a text of " + std::to_string(bytes) + " bytes is over the bound of " + std::to_string(max));
    return cursor_.text(bytes, out);
  }

  bool keep(std::uint64_t bytes) {
    kept_bytes_ += bytes;
    if (kept_bytes_ <= kGgufKeptBytesMax) return true;
    return cursor_.fail_here(ErrorCode::kTooLarge, "keys and values add up to more than " +
                                                       std::to_string(kGgufKeptBytesMax) + " bytes");
  }

  bool metadata() {
    for (std::uint64_t i = 0; i < key_count_; ++i) {
      label_ = "key " + std::to_string(i);
      cursor_.field(label_);
      const std::uint64_t at = cursor_.position();
      std::string key;
      if (!string(key, kGgufKeyBytesMax)) return false;
      if (key.empty()) return corrupt("the key is empty");
      label_ = "key " + printable(key);
      cursor_.field(label_);
      if (!keep(2 * key.size() + 128)) return false;
      std::uint32_t type = 0;
      if (!cursor_.number(type)) return false;
      GgufValue value;
      if (!(type == kArray ? array(key, value) : scalar(type, value))) return false;
      if (!header_.metadata.emplace(key, std::move(value)).second) return corrupt("the key is there twice");
      header_.key_offsets.emplace(std::move(key), at);
    }
    return true;
  }

  template <class T, class As>
  bool read_as(GgufValue& out) {
    T number{};
    if (!cursor_.number(number)) return false;
    out = static_cast<As>(number);
    return true;
  }

  bool scalar(std::uint32_t type, GgufValue& out) {
    switch (type) {
      case kU8:
        return read_as<std::uint8_t, std::int64_t>(out);
      case kI8:
        return read_as<std::int8_t, std::int64_t>(out);
      case kU16:
        return read_as<std::uint16_t, std::int64_t>(out);
      case kI16:
        return read_as<std::int16_t, std::int64_t>(out);
      case kU32:
        return read_as<std::uint32_t, std::int64_t>(out);
      case kI32:
        return read_as<std::int32_t, std::int64_t>(out);
      case kF32:
        return read_as<float, double>(out);
      case kF64:
        return read_as<double, double>(out);
      case kI64:
        return read_as<std::int64_t, std::int64_t>(out);
      case kU64:
        return unsigned_long(out);
      case kBool: {
        std::uint8_t byte = 0;
        if (!cursor_.number(byte)) return false;
        out = byte != 0;
        return true;
      }
      case kString:
        return text(out);
      default:
        return corrupt("unknown value type " + std::to_string(type));
    }
  }

  bool unsigned_long(GgufValue& out) {
    std::uint64_t number = 0;
    if (!cursor_.number(number)) return false;
    if (number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      out = static_cast<std::int64_t>(number);
    } else {
      out = number;
    }
    return true;
  }

  // Long texts (chat templates, licences) are stepped over.
  bool text(GgufValue& out) {
    std::uint64_t bytes = 0;
    if (!cursor_.number(bytes)) return false;
    if (bytes > cursor_.left())
      return corrupt("a text of " + std::to_string(bytes) + " bytes is longer than the rest of the file");
    if (bytes > kGgufKeptTextBytes) {
      out = GgufSkippedArray{bytes};
      return cursor_.skip(bytes);
    }
    std::string value;
    if (!keep(bytes) || !cursor_.text(bytes, value)) return false;
    out = std::move(value);
    return true;
  }

  bool array(std::string_view key, GgufValue& out) {
    std::uint32_t type = 0;
    std::uint64_t count = 0;
    if (!cursor_.number(type)) return false;
    if (type == kArray) return corrupt("an array of arrays");
    if (type >= kValueTypes) return corrupt("unknown element type " + std::to_string(type));
    if (!cursor_.number(count)) return false;
    const std::uint64_t bytes_min = type == kString ? 8 : kValueBytes[type];
    if (count > cursor_.left() / bytes_min) {
      return corrupt("an array of " + std::to_string(count) +
                     " elements is longer than the rest of the file");
    }
    if (type == kString) {
      out = GgufSkippedArray{count};
      return skip_strings(count);
    }
    if (count > kGgufKeptElements || key.starts_with("tokenizer.")) {
      out = GgufSkippedArray{count};
      return cursor_.skip(count * bytes_min);
    }
    return kept_array(type, count, out);
  }

  bool skip_strings(std::uint64_t count) {
    strings_ += count;
    if (strings_ > kGgufStringsMax) {
      return cursor_.fail_here(ErrorCode::kTooLarge,
                               "the arrays hold more than " + std::to_string(kGgufStringsMax) + " texts");
    }
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t bytes = 0;
      if (!cursor_.number(bytes)) return false;
      if (bytes > cursor_.left())
        return corrupt("element " + std::to_string(i) + " is longer than the rest of the file");
      if (!cursor_.skip(bytes)) return false;
    }
    return true;
  }

  bool kept_array(std::uint32_t type, std::uint64_t count, GgufValue& out) {
    if (!keep(count * 8)) return false;
    std::vector<std::int64_t> integers;
    std::vector<double> reals;
    for (std::uint64_t i = 0; i < count; ++i) {
      GgufValue element;
      if (!scalar(type, element)) return false;
      if (const auto* integer = std::get_if<std::int64_t>(&element)) {
        integers.push_back(*integer);
      } else if (const auto* truth = std::get_if<bool>(&element)) {
        integers.push_back(*truth ? 1 : 0);
      } else if (const auto* real = std::get_if<double>(&element)) {
        reals.push_back(*real);
      } else {
        integers.push_back(std::numeric_limits<std::int64_t>::max());  // a u64 that no size can reach
      }
    }
    if (is_float(type)) {
      out = GgufArray(std::move(reals));
    } else {
      out = GgufArray(std::move(integers));
    }
    return true;
  }

  // An integer key in [min, max], or `fallback` when it is absent.
  bool integer_key(std::string_view key, std::int64_t min, std::int64_t max, std::int64_t fallback,
                   std::int64_t& out) {
    out = fallback;
    const GgufValue* value = header_.find(key);
    if (value == nullptr) return true;
    label_ = "key " + std::string(key);
    cursor_.field(label_);
    const auto* integer = std::get_if<std::int64_t>(value);
    if (integer == nullptr) return corrupt("must be an integer");
    if (*integer < min || *integer > max)
      return corrupt("is " + std::to_string(*integer) + ", must be from " + std::to_string(min) + " to " +
                     std::to_string(max));
    out = *integer;
    return true;
  }

  bool known_keys(bool first_part) {
    std::int64_t alignment = 0;
    std::int64_t split_count = 0;
    std::int64_t split_no = 0;
    if (!integer_key("general.alignment", 1, std::int64_t{1} << 31, 32, alignment)) return false;
    if (!std::has_single_bit(static_cast<std::uint64_t>(alignment)))
      return corrupt("is " + std::to_string(alignment) + ", must be a power of two");
    header_.alignment = static_cast<std::uint64_t>(alignment);
    if (!integer_key("split.count", 0, kGgufPartsMax, 1, split_count)) return false;
    if (!integer_key("split.no", 0, kGgufPartsMax, 0, split_no)) return false;
    header_.split_count = static_cast<std::uint32_t>(std::max<std::int64_t>(split_count, 1));
    header_.split_no = static_cast<std::uint32_t>(split_no);
    if (header_.split_no >= header_.split_count)
      return corrupt("part number " + std::to_string(split_no) + " of " +
                     std::to_string(header_.split_count));
    return architecture(first_part);
  }

  bool architecture(bool required) {
    cursor_.field("key general.architecture");
    const GgufValue* value = header_.find("general.architecture");
    if (value == nullptr) return required ? corrupt("is missing") : true;
    const auto* name = std::get_if<std::string>(value);
    if (name == nullptr) return corrupt("must be a text");
    if (name->empty() || name->size() > 64) return corrupt("must have 1 to 64 bytes");
    header_.architecture = *name;
    return true;
  }

  bool tensors() {
    cursor_.field("tensor count");
    if (tensor_count_ == 0 && header_.split_count == 1) return corrupt("the file has no tensors");
    std::uint64_t expected = 0;
    for (std::uint64_t i = 0; i < tensor_count_; ++i) {
      if (!tensor(i, expected)) return false;
    }
    std::set<std::string_view> names;
    for (const GgufTensor& t : header_.tensors) {
      if (names.insert(t.name).second) continue;
      label_ = "tensor " + printable(t.name);
      cursor_.field(label_);
      return corrupt("the name is there twice");
    }
    return true;
  }

  bool tensor(std::uint64_t index, std::uint64_t& expected) {
    label_ = "tensor " + std::to_string(index);
    cursor_.field(label_);
    GgufTensor tensor;
    tensor.entry_offset = cursor_.position();
    if (!string(tensor.name, kTensorNameBytesMax)) return false;
    if (tensor.name.empty()) return corrupt("the name is empty");
    label_ = "tensor " + printable(tensor.name);
    cursor_.field(label_);
    std::uint32_t dims = 0;
    if (!cursor_.number(dims)) return false;
    if (dims > tensor.dims.size())
      return corrupt("has " + std::to_string(dims) + " dimensions, at most 4 are possible");
    for (std::uint32_t d = 0; d < dims; ++d) {
      if (!cursor_.number(tensor.dims[d])) return false;
    }
    std::uint32_t type = 0;
    if (!cursor_.number(type)) return false;
    tensor.type = ggml_type(type);
    if (tensor.type == nullptr) return corrupt("unknown tensor type " + std::to_string(type));
    if (!cursor_.number(tensor.offset) || !size_of(tensor)) return false;
    // gguf.cpp of llama.cpp v0.5.0 wants the tensors back to back in the order of the table; so a gap or an
    // overlap is a file that the engine would refuse.
    if (tensor.offset % header_.alignment != 0)
      return corrupt("data offset " + std::to_string(tensor.offset) + " is not a multiple of the alignment " +
                     std::to_string(header_.alignment));
    if (tensor.offset != expected)
      return corrupt("data offset " + std::to_string(tensor.offset) + " where " + std::to_string(expected) +
                     " follows from the tensors before it");
    const std::uint64_t padding = (header_.alignment - tensor.bytes % header_.alignment) % header_.alignment;
    if (tensor.bytes > header_.file_bytes || expected > header_.file_bytes)
      return corrupt("its data of " + std::to_string(tensor.bytes) +
                     " bytes lies past the end of the file: truncated");
    expected += tensor.bytes + padding;
    header_.tensors.push_back(std::move(tensor));
    return true;
  }

  bool size_of(GgufTensor& tensor) {
    std::uint64_t elements = 1;
    for (const std::uint64_t dim : tensor.dims) {
      if (dim == 0) return corrupt("has a dimension of 0");
      if (__builtin_mul_overflow(elements, dim, &elements)) return corrupt("its dimensions overflow");
    }
    if (elements > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return corrupt("its dimensions overflow");
    if (tensor.dims[0] % tensor.type->block != 0) {
      return corrupt("rows of " + std::to_string(tensor.dims[0]) + " elements do not divide into blocks of " +
                     std::to_string(tensor.type->block) + " (" + tensor.type->name + ")");
    }
    if (__builtin_mul_overflow(elements / tensor.type->block, std::uint64_t{tensor.type->block_bytes},
                               &tensor.bytes))
      return corrupt("its size overflows");
    return true;
  }

  bool data_section() {
    const std::uint64_t at = cursor_.position();
    const std::uint64_t padding = (header_.alignment - at % header_.alignment) % header_.alignment;
    header_.data_offset = at + padding;
    for (const GgufTensor& tensor : header_.tensors) {
      // Each bound was checked to be at most the file's size, so the differences cannot wrap.
      const bool fits = header_.data_offset <= header_.file_bytes &&
                        tensor.offset <= header_.file_bytes - header_.data_offset &&
                        tensor.bytes <= header_.file_bytes - header_.data_offset - tensor.offset;
      if (fits) continue;
      label_ = "tensor " + printable(tensor.name);
      cursor_.field(label_);
      return corrupt("its data (" + std::to_string(tensor.bytes) + " bytes at data offset " +
                     std::to_string(tensor.offset) + ") lies past the end of the file, at " +
                     std::to_string(header_.file_bytes) + " bytes: the download is not complete");
    }
    return true;
  }

  GgufCursor cursor_;
  GgufHeader header_;
  std::string label_;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t key_count_ = 0;
  std::uint64_t kept_bytes_ = 0;
  std::uint64_t strings_ = 0;
};

}  // namespace

Result<GgufHeader> read_gguf_part(ByteSource& source, bool first_part) {
  return HeaderReader(source).run(first_part);
}

Result<GgufHeader> read_gguf(ByteSource& source) {
  return read_gguf_part(source, true);
}

const GgufValue* GgufHeader::find(std::string_view key) const {
  const auto it = metadata.find(key);
  return it == metadata.end() ? nullptr : &it->second;
}

std::string GgufHeader::place_of_key(std::string_view full_key) const {
  constexpr std::uint64_t kKeysBegin = 24;  // magic, version, two counts
  const auto it = key_offsets.find(full_key);
  const std::uint64_t at = it == key_offsets.end() ? kKeysBegin : it->second;
  return "key " + printable(full_key) + ", offset " + std::to_string(at);
}

const GgufValue* GgufHeader::find_arch(std::string_view key) const {
  std::string full;
  full.reserve(architecture.size() + 1 + key.size());
  full.append(architecture).append(1, '.').append(key);
  return find(full);
}

}  // namespace aiv
