// GGUF: the header of a model file, read without its weights.
//
// Rules, each with its reason:
//  - Nothing is allocated in proportion to a count that the file claims, only to bytes that were really
//  there: a
//    file of 100 bytes may claim 2^60 tensors.
//  - Every length, count and offset is compared with what is left before use, in a form that cannot wrap.
//  - The tokenizer's arrays (32,000 to 262,144 strings) are stepped over, not built: they are most of a
//  header
//    and no figure depends on them.
//  - An error names the field (`where`: "tensor blk.0.attn_q.weight, offset 1234") and says what is wrong
//  with it.
// Format: ggml's docs/gguf.md and ggml/src/gguf.cpp (llama.cpp v0.5.0); versions 2 and 3, little endian.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.hpp"
#include "core/byte_source.hpp"

namespace aiv {

// Storage layout of one ggml tensor type (ggml/src/ggml.c, type_traits): `block` elements take `block_bytes`.
struct GgmlType {
  std::uint32_t number = 0;
  const char* name = "";
  std::uint32_t block = 1;
  std::uint32_t block_bytes = 4;
  bool quantised = false;
};
// nullptr for a number or name that ggml does not know, or knows no more. Names are lower case ("q4_K",
// "f16").
[[nodiscard]] const GgmlType* ggml_type(std::uint32_t number);
[[nodiscard]] const GgmlType* ggml_type_named(std::string_view name);

struct GgufTensor {
  std::string name;
  std::array<std::uint64_t, 4> dims{1, 1, 1, 1};  // dims[0] is the row
  const GgmlType* type = nullptr;
  std::uint64_t offset = 0;  // from the start of the data section of its part
  std::uint64_t bytes = 0;
  std::uint64_t entry_offset = 0;  // of its entry in the table, for messages
  std::uint32_t part = 0;          // which file of a split model
};

// An array that is kept: integers, booleans and floats only, at most kGgufKeptElements of them.
using GgufArray = std::variant<std::vector<std::int64_t>, std::vector<double>>;
// What is known of an array that is not kept (strings; long ones).
struct GgufSkippedArray {
  std::uint64_t count = 0;
};
using GgufValue =
    std::variant<std::int64_t, std::uint64_t, double, bool, std::string, GgufArray, GgufSkippedArray>;

struct GgufHeader {
  std::uint32_t version = 0;
  std::string architecture;
  std::uint64_t alignment = 32;
  std::uint64_t data_offset = 0;  // of the first part
  std::uint64_t file_bytes = 0;   // all parts
  // Everything except the tokenizer's arrays and texts over 4 KiB (kept as skipped with their length).
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::map<std::string, std::uint64_t, std::less<>> key_offsets;  // where each key stands, for messages
  std::vector<GgufTensor> tensors;                                // in file order, parts in order
  std::uint32_t split_count = 1;                                  // parts the model says it has
  std::uint32_t split_no = 0;                                     // which of them this is, from 0
  std::uint32_t parts = 1;                                        // how many were read into this

  [[nodiscard]] const GgufValue* find(std::string_view key) const;
  // "key llama.block_count, offset 123"; a key that is not there: the offset where the keys begin.
  [[nodiscard]] std::string place_of_key(std::string_view full_key) const;
  // Key in the architecture's own name space: arch("block_count") is "llama.block_count".
  [[nodiscard]] const GgufValue* find_arch(std::string_view key) const;
};

// Bounds: what a sound file never reaches, so that no file can make us take more than about a second or 64
// MiB.
inline constexpr std::uint64_t kGgufTensorsMax = 65'536;     // the largest known model has about 1,100
inline constexpr std::uint64_t kGgufKeysMax = 65'536;        // about 60
inline constexpr std::uint64_t kGgufKeyBytesMax = 65'535;    // the format's own limit
inline constexpr std::uint64_t kGgufStringsMax = 8'388'608;  // strings in arrays, all together; about 800,000
inline constexpr std::uint64_t kGgufHeaderBytesMax = 1u << 30;
inline constexpr std::uint64_t kGgufFileBytesMax = std::uint64_t{1}
                                                   << 50;  // so that sums of sizes cannot overflow
inline constexpr std::uint64_t kGgufKeptElements = 4096;
inline constexpr std::uint64_t kGgufKeptTextBytes = 4096;
inline constexpr std::uint64_t kGgufKeptBytesMax = 16u << 20;  // keys, texts and arrays that are kept
inline constexpr std::uint32_t kGgufPartsMax = 1024;

// The header of one file. Checks that the tensor data lies within the source. Errors: kCorrupt (not a sound
// GGUF file; `where` has field and offset), kInvalidArgument (sound but not ours: version 1, big endian),
// kTooLarge (over a bound above), kIo (from the source).
Result<GgufHeader> read_gguf(ByteSource& source);

// One model from all its parts, in order; `parts.size()` must equal the count that the first one names.
Result<GgufHeader> read_gguf_parts(std::span<ByteSource* const> parts);

// The file names of all parts when `path` is "NAME-00001-of-0000N.gguf", else only `path`. kInvalidArgument
// if it is another part than the first, or N is 0 or above kGgufPartsMax (llama.cpp wants the first part
// too).
Result<std::vector<std::string>> gguf_part_paths(const std::string& path);

}  // namespace aiv
