#include "gateway/api/embeddings.hpp"

#include <bit>
#include <cmath>

#include "base/json.hpp"

namespace aiv::gateway {
namespace {

std::string base64_of(const std::vector<float>& values) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  for (const float value : values) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (unsigned shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(bits >> shift & 0xFF);
  }
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (k < left ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k) out += k <= left ? kDigits[word >> (18 - 6 * k) & 63U] : '=';
  }
  return out;
}

}  // namespace

CutEmbeddingForm::CutEmbeddingForm(std::string model, std::int64_t dimensions, bool base64)
    : model_(std::move(model)), dimensions_(static_cast<std::size_t>(dimensions)), base64_(base64) {}

Result<std::string> CutEmbeddingForm::whole(std::string_view body) {
  auto json = parse_json(body);
  if (!json || !json->is_object() || !json->contains("data") || !(*json)["data"].is_array()) {
    return fail(ErrorCode::kCorrupt, "its answer holds no embeddings");
  }
  (*json)["model"] = model_;
  for (Json& entry : (*json)["data"]) {
    if (!entry.is_object() || !entry.contains("embedding") || !entry["embedding"].is_array()) {
      return fail(ErrorCode::kCorrupt, "its answer holds no embeddings");
    }
    const Json& whole = entry["embedding"];
    if (whole.size() < dimensions_) {
      return fail(ErrorCode::kInvalidArgument,
                  "'dimensions' must be at most " + std::to_string(whole.size()) + " for this model.",
                  "dimensions");
    }
    std::vector<float> vector;
    double squares = 0;
    for (std::size_t i = 0; i < dimensions_; ++i) {
      if (!whole[i].is_number())
        return fail(ErrorCode::kCorrupt, "an embedding holds something else than numbers");
      vector.push_back(whole[i].get<float>());
      squares += static_cast<double>(vector.back()) * static_cast<double>(vector.back());
    }
    const double length = std::sqrt(squares);
    if (length > 0) {
      for (float& value : vector) value = static_cast<float>(static_cast<double>(value) / length);
    }
    entry["embedding"] = base64_ ? Json(base64_of(vector)) : Json(vector);
  }
  return dump_json(*json);
}

}  // namespace aiv::gateway
