#include "base/hash.hpp"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

namespace aiv {
namespace {

using DigestContext = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

std::string hex_of(const unsigned char* bytes, std::size_t count) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  out.resize(2 * count);
  for (std::size_t i = 0; i < count; ++i) {
    out[2 * i] = kDigits[bytes[i] >> 4U];
    out[2 * i + 1] = kDigits[bytes[i] & 15U];
  }
  return out;
}

std::string finish_hex(EVP_MD_CTX* context) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  AIV_ASSERT(EVP_DigestFinal_ex(context, digest.data(), &length) == 1);
  return hex_of(digest.data(), length);
}

DigestContext start_sha256() {
  DigestContext context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  AIV_ASSERT(context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  return context;
}

void random_bytes(unsigned char* out, std::size_t count) {
  AIV_ASSERT(RAND_bytes(out, static_cast<int>(count)) == 1);
}

}  // namespace

std::string sha256_hex(std::string_view data) {
  // Every request's key is hashed. OpenSSL's one-shot form looks the algorithm up by its name each time, which costs ten
  // times the hash, and so would a new context.
  static EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  thread_local const DigestContext context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  unsigned int length = 0;
  AIV_ASSERT(algorithm != nullptr && context != nullptr && EVP_DigestInit_ex2(context.get(), algorithm, nullptr) == 1 &&
             EVP_DigestUpdate(context.get(), data.data(), data.size()) == 1 &&
             EVP_DigestFinal_ex(context.get(), digest.data(), &length) == 1 && length == digest.size());
  return hex_of(digest.data(), digest.size());
}

Result<std::string> sha256_file_hex(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, std::strerror(errno), path);
  const DigestContext context = start_sha256();
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      ::close(fd);
      return fail(ErrorCode::kIo, std::strerror(error), path);
    }
    if (got == 0) break;
    AIV_ASSERT(EVP_DigestUpdate(context.get(), buffer.data(), static_cast<std::size_t>(got)) == 1);
  }
  ::close(fd);
  return finish_hex(context.get());
}

std::string random_base62(std::size_t characters) {
  constexpr std::string_view kAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string out;
  while (out.size() < characters) {
    unsigned char byte = 0;
    random_bytes(&byte, 1);
    // 248 = 4 * 62: what is above would favour the first letters.
    if (byte < 248) out += kAlphabet[byte % 62];
  }
  return out;
}

std::uint64_t random_u64() {
  std::uint64_t value = 0;
  random_bytes(reinterpret_cast<unsigned char*>(&value), sizeof value);
  return value;
}

bool equal_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::uint32_t crc32(std::string_view data) {
  // Polynomial 0xEDB88320 (IEEE 802.3), bit by bit: keys are 60 bytes.
  std::uint32_t crc = ~0U;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

std::uint64_t fnv1a(std::string_view data) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : data) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

}  // namespace aiv
