#include "controller/sqlite_statement.hpp"

#include "base/hash.hpp"

namespace aiv::controller {

namespace {

void append_u64(std::string& out, std::uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>((value >> shift) & 0xff));
}

}  // namespace

std::string RowSum::bytes() const {
  std::string out;
  for (const std::uint64_t lane : lanes) append_u64(out, lane);
  return out;
}

RowSum RowSum::from_bytes(std::string_view bytes) {
  RowSum sum;
  if (bytes.size() != 32) return sum;
  for (std::size_t i = 0; i < 32; ++i) {
    sum.lanes[i / 8] |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * (i % 8));
  }
  return sum;
}

RowSum row_sum(std::string_view first, std::string_view second, std::int64_t a, std::int64_t b) {
  std::string text;
  text.reserve(first.size() + second.size() + 32);
  append_u64(text, first.size());
  append_u64(text, second.size());
  append_u64(text, static_cast<std::uint64_t>(a));
  append_u64(text, static_cast<std::uint64_t>(b));
  text.append(first).append(second);
  const std::string hex = sha256_hex(text);
  RowSum sum;
  for (std::size_t i = 0; i < 4; ++i) sum.lanes[i] = std::stoull(hex.substr(i * 16, 16), nullptr, 16);
  return sum;
}

}  // namespace aiv::controller
