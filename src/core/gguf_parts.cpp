// Models in several files: names, and one header from all of them.
#include <set>

#include "base/units.hpp"
#include "core/gguf.hpp"
#include "core/gguf_cursor.hpp"

namespace aiv {
namespace {

Error in_part(Error error, std::size_t part) {
  error.where = "part " + std::to_string(part + 1) + ", " + error.where;
  return error;
}

// Appends the tensors of part `index` after checking that it belongs there.
Result<> append_part(GgufHeader& whole, GgufHeader&& part, std::size_t index) {
  if (part.split_count != whole.split_count || part.split_no != index) {
    return fail(
        ErrorCode::kCorrupt,
        "says it is part " + std::to_string(part.split_no + 1) + " of " + std::to_string(part.split_count),
        "part " + std::to_string(index + 1) + ", key split.no");
  }
  whole.file_bytes += part.file_bytes;
  for (GgufTensor& tensor : part.tensors) {
    tensor.part = static_cast<std::uint32_t>(index);
    whole.tensors.push_back(std::move(tensor));
  }
  if (whole.tensors.size() > kGgufTensorsMax)
    return fail(ErrorCode::kTooLarge, "too many tensors", "part " + std::to_string(index + 1));
  return {};
}

Result<> check_whole(const GgufHeader& whole) {
  std::set<std::string_view> names;
  for (const GgufTensor& tensor : whole.tensors) {
    if (!names.insert(tensor.name).second) {
      return fail(ErrorCode::kCorrupt, "the name is there twice",
                  "tensor " + printable(tensor.name) + ", part " + std::to_string(tensor.part + 1));
    }
  }
  if (names.empty()) return fail(ErrorCode::kCorrupt, "the parts have no tensors", "tensor count");
  const GgufValue* value = whole.find("split.tensors.count");
  const auto* count = value == nullptr ? nullptr : std::get_if<std::int64_t>(value);
  if (count != nullptr && static_cast<std::uint64_t>(*count) != names.size()) {
    return fail(ErrorCode::kCorrupt,
                "says " + std::to_string(*count) + " tensors, the parts have " + std::to_string(names.size()),
                "key split.tensors.count");
  }
  return {};
}

}  // namespace

Result<GgufHeader> read_gguf_parts(std::span<ByteSource* const> parts) {
  AIV_ASSERT(!parts.empty());
  Result<GgufHeader> whole = read_gguf(*parts[0]);
  if (!whole) return whole;
  if (whole->split_no != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "this is part " + std::to_string(whole->split_no + 1) + " of " +
                    std::to_string(whole->split_count) + ": give the first part",
                "key split.no");
  }
  if (whole->split_count != parts.size()) {
    return fail(ErrorCode::kInvalidArgument,
                "the model has " + std::to_string(whole->split_count) + " parts, " +
                    std::to_string(parts.size()) +
                    " given: keep the names NAME-00001-of-0000N.gguf, in one directory",
                "key split.count");
  }
  for (std::size_t i = 1; i < parts.size(); ++i) {
    Result<GgufHeader> part = read_gguf_part(*parts[i], false);
    if (!part) return std::unexpected(in_part(part.error(), i));
    if (Result<> r = append_part(*whole, std::move(*part), i); !r) return std::unexpected(r.error());
  }
  whole->parts = static_cast<std::uint32_t>(parts.size());
  if (parts.size() > 1) {
    if (Result<> r = check_whole(*whole); !r) return std::unexpected(r.error());
  }
  return whole;
}

Result<std::vector<std::string>> gguf_part_paths(const std::string& path) {
  // "-00001-of-00003.gguf": 20 characters (llama_split_path in llama.cpp v0.5.0, src/llama.cpp).
  constexpr std::size_t kTail = 20;
  if (path.size() < kTail) return std::vector{path};
  const std::string_view tail = std::string_view(path).substr(path.size() - kTail);
  const auto digits = [&](std::size_t at) {
    int value = 0;
    for (std::size_t i = at; i < at + 5; ++i) {
      if (tail[i] < '0' || tail[i] > '9') return -1;
      value = value * 10 + (tail[i] - '0');
    }
    return value;
  };
  const int number = digits(1);
  const int count = digits(10);
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf" || number < 0 || count < 0)
    return std::vector{path};
  if (count < 1 || count > static_cast<int>(kGgufPartsMax) || number > count) {
    return fail(ErrorCode::kInvalidArgument,
                "part " + std::to_string(number) + " of " + std::to_string(count) + " in the file's name",
                path);
  }
  if (number != 1) {
    return fail(
        ErrorCode::kInvalidArgument,
        "this is part " + std::to_string(number) + " of " + std::to_string(count) + ": give the first part",
        path);
  }
  std::vector<std::string> paths;
  const std::string prefix = path.substr(0, path.size() - kTail);
  const std::string count_text(tail.substr(10, 5));
  for (int i = 1; i <= count; ++i) {
    std::string digits5 = std::to_string(i);
    digits5.insert(0, 5 - digits5.size(), '0');
    paths.push_back(prefix + "-" + digits5 + "-of-" + count_text + ".gguf");
  }
  return paths;
}

}  // namespace aiv
