#include "make-model/random_model.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string_view>
#include <vector>

namespace aiv {
namespace {

// ggml/include/gguf.h and ggml.h of llama.cpp v0.5.0; the layout is docs/gguf.md of ggml.
enum GgufType : std::uint32_t { kUint32 = 4, kInt32 = 5, kFloat32 = 6, kString = 8, kArray = 9 };
enum GgmlTypeNumber : std::uint32_t { kF32 = 0, kF16 = 1 };
constexpr std::uint64_t kAlignment = 32;
constexpr std::size_t kChunkValues = 64 * 1024;

enum TokenType : std::int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };

struct Tensor {
  std::string name;
  std::vector<std::int64_t> dims;  // fastest first, as ggml counts
  GgmlTypeNumber type = kF16;
  float fan_in = 0;  // of a matrix: its values are drawn with deviation 1/sqrt(fan_in); 0: a norm's scale, all 1
  [[nodiscard]] std::int64_t values() const {
    std::int64_t n = 1;
    for (const std::int64_t d : dims) n *= d;
    return n;
  }
  [[nodiscard]] std::uint64_t bytes() const { return static_cast<std::uint64_t>(values()) * (type == kF16 ? 2 : 4); }
};

std::uint64_t padded(std::uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::vector<Tensor> tensors_of(const RandomModelShape& s) {
  const std::int64_t kv_width = s.embd / s.heads * s.kv_heads;
  const auto matrix = [&](std::string name, std::int64_t in, std::int64_t out) {
    return Tensor{.name = std::move(name), .dims = {in, out}, .type = s.f16 ? kF16 : kF32, .fan_in = static_cast<float>(in)};
  };
  const auto norm = [&](std::string name) { return Tensor{.name = std::move(name), .dims = {s.embd}, .type = kF32, .fan_in = 0}; };
  std::vector<Tensor> tensors = {matrix("token_embd.weight", s.embd, s.vocab), norm("output_norm.weight")};
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    tensors.push_back(norm(block + "attn_norm.weight"));
    tensors.push_back(matrix(block + "attn_q.weight", s.embd, s.embd));
    tensors.push_back(matrix(block + "attn_k.weight", s.embd, kv_width));
    tensors.push_back(matrix(block + "attn_v.weight", s.embd, kv_width));
    tensors.push_back(matrix(block + "attn_output.weight", s.embd, s.embd));
    tensors.push_back(norm(block + "ffn_norm.weight"));
    tensors.push_back(matrix(block + "ffn_gate.weight", s.embd, s.feed_forward));
    tensors.push_back(matrix(block + "ffn_up.weight", s.embd, s.feed_forward));
    tensors.push_back(matrix(block + "ffn_down.weight", s.feed_forward, s.embd));
  }
  return tensors;
}

Result<> check(const RandomModelShape& s) {
  const auto bad = [](const char* field, const char* reason) { return fail(ErrorCode::kInvalidArgument, reason, field); };
  if (s.layers < 1 || s.layers > 512) return bad("layers", "must be from 1 to 512");
  if (s.heads < 1 || s.heads > 256) return bad("heads", "must be from 1 to 256");
  if (s.kv_heads < 1 || s.heads % s.kv_heads != 0) return bad("kv_heads", "must divide the heads");
  if (s.embd < 32 || s.embd > 65536 || s.embd % (32 * s.heads) != 0) {
    return bad("embd", "must be a multiple of 32 * heads, at most 65536");
  }
  if (s.feed_forward < 32 || s.feed_forward > 262144 || s.feed_forward % 32 != 0) {
    return bad("feed_forward", "must be a multiple of 32, at most 262144");
  }
  if (s.ctx_train < 256 || s.ctx_train > 1 << 24) return bad("ctx_train", "must be from 256 to 16777216");
  if (s.vocab < kRandomModelVocabMin || s.vocab > 1 << 20) return bad("vocab", "must be from 512 to 1048576");
  return {};
}

// ---- header ----------------------------------------------------------------------------------------------

class Header {
 public:
  template <class T>
  void raw(T value) {
    const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
    bytes_.append(bytes.data(), bytes.size());
  }
  void text(std::string_view value) {
    raw(static_cast<std::uint64_t>(value.size()));
    bytes_ += value;
  }
  void key(std::string_view name, GgufType type) {
    text(name);
    raw(static_cast<std::uint32_t>(type));
    ++keys_;
  }
  void number(std::string_view name, std::int64_t value) {
    key(name, kUint32);
    raw(static_cast<std::uint32_t>(value));
  }
  void real(std::string_view name, float value) {
    key(name, kFloat32);
    raw(value);
  }
  void string(std::string_view name, std::string_view value) {
    key(name, kString);
    text(value);
  }
  void array(std::string_view name, GgufType element, std::size_t count) {
    key(name, kArray);
    raw(static_cast<std::uint32_t>(element));
    raw(static_cast<std::uint64_t>(count));
  }
  [[nodiscard]] std::uint64_t keys() const { return keys_; }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
  std::uint64_t keys_ = 0;
};

struct Token {
  std::string text;
  float score = 0;
  TokenType type = kNormal;
};

// SentencePiece-like: specials, all bytes, letters, some words; "\u2581" stands for the blank before a word.
std::vector<Token> vocabulary(std::int64_t size) {
  constexpr std::string_view kBlank = "\u2581";
  std::vector<Token> tokens = {{"<unk>", 0, kUnknown}, {"<s>", 0, kControl}, {"</s>", 0, kControl}};
  for (int byte = 0; byte < 256; ++byte) {
    std::array<char, 8> name{};
    std::snprintf(name.data(), name.size(), "<0x%02X>", static_cast<unsigned>(byte));
    tokens.push_back({name.data(), 0, kByte});
  }
  float score = 0;
  std::set<std::string> seen;  // the engine aborts on a token that comes twice (llama-vocab.cpp:2539)
  const auto add = [&](std::string text) {
    if (seen.insert(text).second) tokens.push_back({std::move(text), score -= 1, kNormal});
  };
  add(std::string(kBlank));
  for (const char c : std::string_view("etaoinshrdlucmfwypvbgkqjxzETAOINSHRDLUCMFWYPVBGKQJXZ0123456789.,!?'\"-:;()")) {
    add(std::string(1, c));
  }
  constexpr std::string_view kWords[] = {
      "the", "a",    "and",  "of",   "to",   "in",    "is",    "it",    "was",  "on",   "with", "for",
      "as",  "they", "at",   "one",  "big",  "small", "day",   "once",  "upon", "time", "sun",  "moon",
      "sea", "tree", "bird", "went", "said", "saw",   "happy", "little", "old",  "new",  "very", "play"};
  for (const std::string_view word : kWords) {
    add(std::string(word));
    add(std::string(kBlank) + std::string(word));
  }
  for (std::int64_t i = 0; static_cast<std::int64_t>(tokens.size()) < size; ++i) {
    add(std::string(kBlank) + "w" + std::to_string(i));
  }
  return tokens;
}

std::string header_of(const RandomModelShape& s, const std::vector<Tensor>& tensors) {
  Header h;
  h.string("general.architecture", "llama");
  h.string("general.name", s.name);
  h.number("general.file_type", s.f16 ? 1 : 0);  // mostly F16, all F32
  h.number("llama.context_length", s.ctx_train);
  h.number("llama.embedding_length", s.embd);
  h.number("llama.block_count", s.layers);
  h.number("llama.feed_forward_length", s.feed_forward);
  h.number("llama.attention.head_count", s.heads);
  h.number("llama.attention.head_count_kv", s.kv_heads);
  h.real("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  h.number("llama.rope.dimension_count", s.embd / s.heads);
  h.number("llama.vocab_size", s.vocab);
  h.string("tokenizer.ggml.model", "llama");
  const std::vector<Token> tokens = vocabulary(s.vocab);
  h.array("tokenizer.ggml.tokens", kString, tokens.size());
  for (const Token& token : tokens) h.text(token.text);
  h.array("tokenizer.ggml.scores", kFloat32, tokens.size());
  for (const Token& token : tokens) h.raw(token.score);
  h.array("tokenizer.ggml.token_type", kInt32, tokens.size());
  for (const Token& token : tokens) h.raw(static_cast<std::int32_t>(token.type));
  h.number("tokenizer.ggml.unknown_token_id", 0);
  h.number("tokenizer.ggml.bos_token_id", 1);
  h.number("tokenizer.ggml.eos_token_id", 2);
  h.string("tokenizer.chat_template",
           "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
           "{% if add_generation_prompt %}assistant:{% endif %}");

  Header whole;
  for (const char c : {'G', 'G', 'U', 'F'}) whole.raw(c);
  whole.raw(std::uint32_t{3});
  whole.raw(static_cast<std::uint64_t>(tensors.size()));
  whole.raw(h.keys());
  std::string bytes = whole.bytes() + h.bytes();
  Header infos;
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    infos.text(tensor.name);
    infos.raw(static_cast<std::uint32_t>(tensor.dims.size()));
    for (const std::int64_t d : tensor.dims) infos.raw(static_cast<std::uint64_t>(d));
    infos.raw(static_cast<std::uint32_t>(tensor.type));
    infos.raw(offset);
    offset += padded(tensor.bytes());
  }
  bytes += infos.bytes();
  bytes.resize(padded(bytes.size()), '\0');
  return bytes;
}

// ---- weights ---------------------------------------------------------------------------------------------

// splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

// IEEE half precision, rounded towards zero; the values here are far from its limits. Below 2^-14 becomes 0.
std::uint16_t half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const int exponent = static_cast<int>((bits >> 23) & 0xffU) - 127 + 15;
  if (exponent <= 0) return sign;
  if (exponent >= 31) return static_cast<std::uint16_t>(sign | 0x7bffU);
  return static_cast<std::uint16_t>(sign | (static_cast<unsigned>(exponent) << 10) | ((bits >> 13) & 0x3ffU));
}

// Uniform with the deviation 1/sqrt(fan_in), which keeps activations of the size they had. Four values per draw, from
// a table of 2^16, so that gigabytes take seconds.
template <class Value, class Convert>
void write_matrix(std::ofstream& file, const Tensor& tensor, Random& random, Convert convert) {
  std::vector<Value> table(65536);
  const float width = 1.7320508F / std::sqrt(tensor.fan_in);
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = convert((static_cast<float>(i) / 32767.5F - 1.0F) * width);
  }
  std::vector<Value> chunk(kChunkValues);
  for (std::int64_t left = tensor.values(); left > 0;) {
    const auto n = static_cast<std::size_t>(std::min<std::int64_t>(left, kChunkValues));
    for (std::size_t i = 0; i < n; i += 4) {
      std::uint64_t draw = random.next();
      for (std::size_t k = i; k < std::min(i + 4, n); ++k, draw >>= 16) chunk[k] = table[draw & 0xffffU];
    }
    file.write(reinterpret_cast<const char*>(chunk.data()), static_cast<std::streamsize>(n * sizeof(Value)));
    left -= static_cast<std::int64_t>(n);
  }
}

void write_weights(std::ofstream& file, const Tensor& tensor, Random& random) {
  if (tensor.fan_in == 0) {
    const std::vector<float> ones(static_cast<std::size_t>(tensor.values()), 1.0F);
    file.write(reinterpret_cast<const char*>(ones.data()), static_cast<std::streamsize>(ones.size() * sizeof(float)));
  } else if (tensor.type == kF16) {
    write_matrix<std::uint16_t>(file, tensor, random, half);
  } else {
    write_matrix<float>(file, tensor, random, [](float value) { return value; });
  }
  const std::string padding(padded(tensor.bytes()) - tensor.bytes(), '\0');
  file.write(padding.data(), static_cast<std::streamsize>(padding.size()));
}

}  // namespace

Result<std::int64_t> random_model_bytes(const RandomModelShape& shape) {
  if (auto ok = check(shape); !ok) return std::unexpected(ok.error());
  std::uint64_t bytes = 0;
  for (const Tensor& tensor : tensors_of(shape)) bytes += tensor.bytes();
  return static_cast<std::int64_t>(bytes);
}

Result<> write_random_model(const RandomModelShape& shape, const std::string& path) {
  if (auto ok = check(shape); !ok) return ok;
  const std::vector<Tensor> tensors = tensors_of(shape);
  const std::string temporary = path + ".part";
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  if (!file) return fail(ErrorCode::kIo, std::string("cannot be written: ") + std::strerror(errno), temporary);
  const std::string header = header_of(shape, tensors);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  Random random(shape.seed);
  for (const Tensor& tensor : tensors) write_weights(file, tensor, random);
  file.close();
  std::error_code error;
  if (file.fail()) {
    std::filesystem::remove(temporary, error);
    return fail(ErrorCode::kIo, "cannot be written to its end; is the disk full?", temporary);
  }
  std::filesystem::rename(temporary, path, error);
  if (error) return fail(ErrorCode::kIo, error.message(), path);
  return {};
}

}  // namespace aiv
