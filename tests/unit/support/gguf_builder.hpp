// Writes GGUF headers in memory, sound ones and, on request, unsound ones: every count, type number and
// offset can be set by hand. Data is zeroes, or left out with `without_data`.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/gguf.hpp"

namespace aiv::test {

class GgufBuilder {
 public:
  explicit GgufBuilder(std::string architecture) : architecture_(std::move(architecture)) {
    if (!architecture_.empty()) text("general.architecture", architecture_);
  }

  // ---- metadata; names without a dot at the front are full, "." stands for the architecture
  GgufBuilder& u32(std::string_view key, std::uint32_t value) { return entry(key, 4, raw(value)); }
  GgufBuilder& u64(std::string_view key, std::uint64_t value) { return entry(key, 10, raw(value)); }
  GgufBuilder& u16(std::string_view key, std::uint16_t value) { return entry(key, 2, raw(value)); }
  GgufBuilder& i32(std::string_view key, std::int32_t value) { return entry(key, 5, raw(value)); }
  GgufBuilder& f32(std::string_view key, float value) { return entry(key, 6, raw(value)); }
  GgufBuilder& boolean(std::string_view key, bool value) {
    return entry(key, 7, std::string(1, value ? '\1' : '\0'));
  }
  GgufBuilder& text(std::string_view key, std::string_view value) { return entry(key, 8, string(value)); }
  GgufBuilder& raw_value(std::string_view key, std::uint32_t type, std::string bytes) {
    return entry(key, type, std::move(bytes));
  }
  GgufBuilder& u32_array(std::string_view key, const std::vector<std::uint32_t>& values) {
    std::string body = raw<std::uint32_t>(4) + raw<std::uint64_t>(values.size());
    for (const std::uint32_t v : values) body += raw(v);
    return entry(key, 9, std::move(body));
  }
  GgufBuilder& bool_array(std::string_view key, const std::vector<bool>& values) {
    std::string body = raw<std::uint32_t>(7) + raw<std::uint64_t>(values.size());
    for (const bool v : values) body += v ? '\1' : '\0';
    return entry(key, 9, std::move(body));
  }
  // `count` tokens of a few bytes each, as a tokenizer has them.
  GgufBuilder& tokens(std::string_view key, std::size_t count) {
    std::string body = raw<std::uint32_t>(8) + raw<std::uint64_t>(count);
    for (std::size_t i = 0; i < count; ++i) body += string("tok" + std::to_string(i));
    return entry(key, 9, std::move(body));
  }

  // ---- tensors
  GgufBuilder& tensor(std::string name, std::vector<std::uint64_t> dims, std::string_view type = "f32") {
    const GgmlType* layout = ggml_type_named(type);
    std::uint64_t elements = 1;
    for (const std::uint64_t d : dims) elements *= d;
    tensors_.push_back({std::move(name), std::move(dims), layout->number, 0,
                        elements / layout->block * layout->block_bytes, false});
    return *this;
  }
  // As it stands, sound or not.
  GgufBuilder& raw_tensor(std::string name, std::vector<std::uint64_t> dims, std::uint32_t type,
                          std::uint64_t offset) {
    tensors_.push_back({std::move(name), std::move(dims), type, offset, 0, true});
    return *this;
  }

  GgufBuilder& version(std::uint32_t value) {
    version_ = value;
    return *this;
  }
  GgufBuilder& alignment(std::uint64_t value) {
    alignment_ = value;
    return *this;
  }  // layout only; add the key too
  GgufBuilder& tensor_count(std::uint64_t value) {
    tensor_count_ = value;
    has_tensor_count_ = true;
    return *this;
  }
  GgufBuilder& key_count(std::uint64_t value) {
    key_count_ = value;
    has_key_count_ = true;
    return *this;
  }

  [[nodiscard]] std::string header() const {
    std::string out = "GGUF" + raw(version_) + raw(has_tensor_count_ ? tensor_count_ : tensors_.size()) +
                      raw(has_key_count_ ? key_count_ : std::uint64_t{entries_.size()});
    for (const std::string& e : entries_) out += e;
    std::uint64_t offset = 0;
    for (const Tensor& t : tensors_) {
      out += string(t.name) + raw(static_cast<std::uint32_t>(t.dims.size()));
      for (const std::uint64_t d : t.dims) out += raw(d);
      out += raw(t.type) + raw(t.by_hand ? t.offset : offset);
      offset += padded(t.bytes);
    }
    return out;
  }
  [[nodiscard]] std::uint64_t data_bytes() const {
    std::uint64_t bytes = 0;
    for (const Tensor& t : tensors_) bytes += padded(t.bytes);
    return bytes;
  }
  // Header, padding and zeroes for the data: for small models only.
  [[nodiscard]] std::string file() const {
    std::string out = header();
    out.resize(padded(out.size()) + data_bytes(), '\0');
    return out;
  }

 private:
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;
    std::uint32_t type;
    std::uint64_t offset;
    std::uint64_t bytes;
    bool by_hand;
  };

  template <class T>
  static std::string raw(T value) {
    std::string out(sizeof(T), '\0');
    std::memcpy(out.data(), &value, sizeof(T));
    return out;
  }
  static std::string string(std::string_view text) {
    return raw<std::uint64_t>(text.size()) + std::string(text);
  }
  [[nodiscard]] std::uint64_t padded(std::uint64_t n) const {
    return (n + alignment_ - 1) / alignment_ * alignment_;
  }
  GgufBuilder& entry(std::string_view key, std::uint32_t type, std::string value) {
    const std::string full = key.starts_with('.') ? architecture_ + std::string(key) : std::string(key);
    entries_.push_back(string(full) + raw(type) + std::move(value));
    return *this;
  }

  std::string architecture_;
  std::vector<std::string> entries_;
  std::vector<Tensor> tensors_;
  std::uint32_t version_ = 3;
  std::uint64_t alignment_ = 32;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t key_count_ = 0;
  bool has_tensor_count_ = false;
  bool has_key_count_ = false;
};

// A header followed by as many zero bytes as its tensors claim, without holding them: real model sizes in
// tests.
class SparseSource final : public ByteSource {
 public:
  explicit SparseSource(const GgufBuilder& builder)
      : header_(builder.header()), size_((header_.size() + 31) / 32 * 32 + builder.data_bytes()) {}
  [[nodiscard]] std::uint64_t size() const override { return size_; }
  Result<> read(std::uint64_t offset, std::span<std::byte> out) override {
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = offset + i < header_.size() ? static_cast<std::byte>(header_[offset + i]) : std::byte{0};
    }
    return {};
  }

 private:
  std::string header_;
  std::uint64_t size_;
};

}  // namespace aiv::test
