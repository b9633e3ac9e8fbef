// From the bytes of a client's body to a checked request (core/openai_request.hpp), rebuilt from its allow-list.
#pragma once
#include <expected>
#include <string>

#include "core/openai_request.hpp"
#include "gateway/api_error.hpp"

namespace aiv::gateway {

// A parser keeps its buffers between bodies; above this size they are given back.
inline constexpr std::size_t kParserKeepBytes = std::size_t{1} << 20;

// `body` may be reallocated (the parser needs padding behind it). Errors are 400 with the offset of what is
// not JSON, or with `param` as the path of the field at fault ("messages[2].content").
std::expected<CheckedRequest, ApiError> parse_openai_request(Endpoint endpoint, std::string& body);

}  // namespace aiv::gateway
