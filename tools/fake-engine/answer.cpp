#include "answer.hpp"

#include <charconv>
#include <cmath>

#include "core/prng.hpp"

namespace aiv::fake {
namespace {

constexpr std::string_view kConsonants = "bdfghjklmnprstvz";
constexpr std::string_view kVowels = "aeio";
constexpr std::size_t kWordBytes = 5;
constexpr Token kPackedBase = 1 << 26;  // | length << 24 | bytes
constexpr Token kCodePointBase = 1 << 27;
constexpr std::string_view kUserMark = "<|user|>\n";
constexpr std::string_view kAssistantMark = "<|assistant|>\n";
constexpr std::string_view kEndMark = "<|end|>";

// FNV-1a: streaming, so the hash of every prefix costs one pass.
constexpr std::uint64_t kFnvOffset = 0xcbf29ce484222325U;
constexpr std::uint64_t kFnvPrime = 0x100000001b3U;

std::uint64_t hash_more(std::uint64_t hash, std::string_view text) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * kFnvPrime;
  return hash;
}

std::uint64_t hash_of_model(std::string_view model) {
  return hash_more(hash_more(kFnvOffset, model), {"\0", 1});
}

Token word_token(std::uint64_t seed, std::int64_t n) {
  std::uint64_t z = seed + static_cast<std::uint64_t>(n) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return kWordBase + static_cast<Token>((z ^ (z >> 31)) & (kWordCount - 1));
}

// The vocabulary's word that `text` begins with, followed by no further letter; nullopt if there is none.
std::optional<Token> word_at(std::string_view text) {
  if (text.size() < kWordBytes || text[0] != ' ') return std::nullopt;
  const auto c1 = kConsonants.find(text[1]);
  const auto v1 = kVowels.find(text[2]);
  const auto c2 = kConsonants.find(text[3]);
  const auto v2 = kVowels.find(text[4]);
  constexpr auto npos = std::string_view::npos;
  if (c1 == npos || v1 == npos || c2 == npos || v2 == npos) return std::nullopt;
  if (text.size() > kWordBytes) {
    const char next = text[kWordBytes];
    if ((next >= 'a' && next <= 'z') || (next >= 'A' && next <= 'Z')) return std::nullopt;
  }
  return kWordBase + static_cast<Token>((c1 << 8) | (v1 << 6) | (c2 << 2) | v2);
}

std::size_t utf8_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const std::size_t want = lead < 0x80                   ? 1
                           : lead >= 0xf0 && lead < 0xf8 ? 4
                           : lead >= 0xe0                ? 3
                           : lead >= 0xc2                ? 2
                                                         : 1;
  if (lead >= 0xf8 || want > text.size()) return 1;
  for (std::size_t i = 1; i < want; ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 1;
  return want;
}

Token pack(std::string_view bytes) {
  Token id = kPackedBase | static_cast<Token>(bytes.size() << 24);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    id |= static_cast<Token>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  return id;
}

Token code_point(std::string_view bytes) {
  Token value = bytes[0] & 0x07;
  for (std::size_t i = 1; i < 4; ++i) value = (value << 6) | (bytes[i] & 0x3f);
  return kCodePointBase | value;
}

std::string encode_code_point(Token value) {
  std::string out;
  for (const int shift : {18, 12, 6, 0}) {
    const auto bits = static_cast<unsigned>(value >> shift) & 0x3fU;
    out.push_back(static_cast<char>(shift == 18 ? 0xf0U | (bits & 7U) : 0x80U | bits));
  }
  return out;
}

Result<std::int64_t> setting_integer(std::string_view key, std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value > kAnswerTokensMax)
    return fail(ErrorCode::kInvalidArgument,
                "#fake " + std::string(key) + " must be a whole number from 0 to 1000000", std::string(key));
  return value;
}

Result<double> setting_ms(std::string_view key, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= 0 && value <= 3.6e6))
    return fail(ErrorCode::kInvalidArgument,
                "#fake " + std::string(key) + " must be milliseconds from 0 to 3600000", std::string(key));
  return value;
}

Result<> apply_setting(Control& control, std::string_view key, std::string_view value) {
  if (key == "token_ms" || key == "first_ms") {
    auto ms = setting_ms(key, value);
    if (!ms) return std::unexpected(ms.error());
    (key == "token_ms" ? control.token_ms : control.first_ms) = *ms;
    return {};
  }
  std::int64_t* target = key == "tokens"     ? &control.tokens
                         : key == "die_at"   ? &control.die_at
                         : key == "stall_at" ? &control.stall_at
                         : key == "eof_at"   ? &control.eof_at
                         : key == "error_at" ? &control.error_at
                         : key == "stamp"    ? &control.stamp
                                             : nullptr;
  if (target == nullptr)
    return fail(ErrorCode::kInvalidArgument, "#fake has no setting '" + std::string(key) + "'",
                std::string(key));
  auto number = setting_integer(key, value);
  if (!number) return std::unexpected(number.error());
  *target = *number;
  return {};
}

Result<> apply_rest_of_line(Control& control, std::string_view key, std::string_view rest) {
  if (key == "say") {
    control.say = std::string(rest);
    return {};
  }
  const auto colon = rest.find(':');
  if (colon == 0 || colon == std::string_view::npos)
    return fail(ErrorCode::kInvalidArgument, "#fake tool= is NAME:JSON", "tool");
  control.tool_name = std::string(rest.substr(0, colon));
  control.tool_arguments = std::string(rest.substr(colon + 1));
  return {};
}

// The first line of the last user message, or of the prompt when it is no chat.
std::string_view control_line(std::string_view prompt) {
  const auto mark = prompt.rfind(kUserMark);
  std::string_view line = mark == std::string_view::npos ? prompt : prompt.substr(mark + kUserMark.size());
  line = line.substr(0, line.find('\n'));
  return line.substr(0, line.find(kEndMark));
}

// Where the answer to a prompt begins in it, as far as marks tell.
std::string_view text_after_marks(std::string_view prompt) {
  const auto mark = prompt.rfind(kAssistantMark);
  if (mark != std::string_view::npos) return prompt.substr(mark + kAssistantMark.size());
  const auto newline = prompt.find('\n');
  return newline == std::string_view::npos ? std::string_view{} : prompt.substr(newline + 1);
}

// Tokens of `fixed` whose text is `begun`; 0 if it ends inside a token or is something else.
std::int64_t tokens_begun(const std::vector<Token>& fixed, std::string_view begun) {
  for (std::size_t i = 0; i < fixed.size(); ++i) {
    if (begun.empty()) return static_cast<std::int64_t>(i);
    const auto piece = piece_of(fixed[i]);
    if (!begun.starts_with(piece)) return 0;
    begun.remove_prefix(piece.size());
  }
  return begun.empty() ? static_cast<std::int64_t>(fixed.size()) : 0;
}

Result<std::string> content_text(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return std::string{};
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array())
    return fail(ErrorCode::kInvalidArgument, "Expected 'content' to be a string or an array", "content");
  std::string text;
  for (const auto& part : *content) {
    if (part.is_object() && part.contains("text") && part["text"].is_string())
      text += part["text"].get<std::string>();
  }
  return text;
}

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  tokens.reserve(text.size() / 3 + 1);
  while (!text.empty()) {
    if (const auto word = word_at(text)) {
      tokens.push_back(*word);
      text.remove_prefix(kWordBytes);
      continue;
    }
    std::size_t length = 0;
    while (length < text.size() && (length == 0 || text[length] != ' ')) {
      const auto next = utf8_length(text.substr(length));
      if (length + next > 3) break;
      length += next;
    }
    if (length == 0) {
      tokens.push_back(code_point(text.substr(0, 4)));
      length = 4;
    } else {
      tokens.push_back(pack(text.substr(0, length)));
    }
    text.remove_prefix(length);
  }
  return tokens;
}

std::string piece_of(Token token) {
  if (token >= kWordBase && token < kWordBase + static_cast<Token>(kWordCount)) {
    const auto w = static_cast<std::size_t>(token - kWordBase);
    return {' ', kConsonants[w >> 8], kVowels[(w >> 6) & 3], kConsonants[(w >> 2) & 15], kVowels[w & 3]};
  }
  if ((token & kCodePointBase) != 0 && token > 0) return encode_code_point(token & 0x1fffff);
  if ((token & kPackedBase) == 0 || token < 0) return {};
  std::string out;
  for (int i = 0; i < ((token >> 24) & 3); ++i) out.push_back(static_cast<char>((token >> (8 * i)) & 0xff));
  return out;
}

std::string detokenize(std::span<const Token> tokens) {
  std::string out;
  for (const auto token : tokens) out += piece_of(token);
  return out;
}

Result<Control> parse_control(std::string_view line) {
  Control control;
  if (!line.starts_with("#fake")) return control;
  line.remove_prefix(5);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  while (true) {
    const auto begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return control;
    line.remove_prefix(begin);
    const auto equals = line.find('=');
    const auto blank = line.find_first_of(" \t");
    if (equals == std::string_view::npos || blank < equals)
      return fail(ErrorCode::kInvalidArgument, "#fake settings are key=value",
                  std::string(line.substr(0, blank)));
    const auto key = line.substr(0, equals);
    line.remove_prefix(equals + 1);
    if (key == "say" || key == "tool") {
      auto done = apply_rest_of_line(control, key, line);
      if (!done) return std::unexpected(done.error());
      return control;
    }
    const auto end = line.find_first_of(" \t");
    auto done = apply_setting(control, key, line.substr(0, end));
    if (!done) return std::unexpected(done.error());
    line = end == std::string_view::npos ? std::string_view{} : line.substr(end);
  }
}

Result<ChatPrompt> apply_template(const Json& messages) {
  if (!messages.is_array())
    return fail(ErrorCode::kInvalidArgument, "Expected 'messages' to be an array", "messages");
  ChatPrompt prompt;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const auto& message = messages[i];
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
      return fail(ErrorCode::kInvalidArgument, "All messages must have a 'role'", "messages");
    auto content = content_text(message);
    if (!content) return std::unexpected(content.error());
    const auto role = message["role"].get<std::string>();
    prompt.text += "<|" + role + "|>\n" + *content;
    if (message.contains("tool_calls")) prompt.text += dump_json(message["tool_calls"]);
    if (role == "assistant" && i + 1 == messages.size()) {
      prompt.prefill = std::move(*content);
      return prompt;
    }
    prompt.text += "<|end|>\n";
  }
  prompt.text += kAssistantMark;
  return prompt;
}

Result<Answer> Answer::make(std::string_view model, std::string_view prompt) {
  // Candidates for the end of the prompt proper: before each of the answer words at its end.
  std::size_t run = 0;
  while (prompt.size() >= (run + 1) * kWordBytes &&
         word_at(prompt.substr(prompt.size() - (run + 1) * kWordBytes, kWordBytes)))
    ++run;
  std::size_t end = prompt.size() - run * kWordBytes;
  std::uint64_t seed = hash_more(hash_of_model(model), prompt.substr(0, end));
  for (;; ++end, --run) {
    bool continues = true;
    for (std::size_t i = 0; continues && i < run; ++i)
      continues = piece_of(word_token(seed, static_cast<std::int64_t>(i))) ==
                  prompt.substr(end + i * kWordBytes, kWordBytes);
    if (continues) break;
    seed = hash_more(seed, prompt.substr(end, kWordBytes));
    end += kWordBytes - 1;
  }

  Answer answer;
  auto control = parse_control(control_line(prompt.substr(0, end)));
  if (!control) return std::unexpected(control.error());
  answer.control_ = std::move(*control);
  answer.seed_ = seed;
  answer.start_ = static_cast<std::int64_t>(run);
  answer.total_ = answer.control_.tokens;
  if (answer.control_.say || answer.control_.tool_name) {
    answer.fixed_ = tokenize(answer.control_.say ? *answer.control_.say : answer.control_.tool_arguments);
    answer.total_ = static_cast<std::int64_t>(answer.fixed_.size());
    answer.start_ = tokens_begun(answer.fixed_, text_after_marks(prompt));
  }
  answer.start_ = std::min(answer.start_, answer.total_);
  return answer;
}

Token Answer::token_at(std::int64_t n) const {
  return fixed_.empty() ? word_token(seed_, n) : fixed_.at(static_cast<std::size_t>(n));
}

std::vector<float> embedding_of(std::string_view model, std::string_view text, std::size_t dimensions) {
  Prng prng(hash_more(hash_of_model(model), text));
  std::vector<float> values(dimensions);
  double norm = 0;
  for (auto& value : values) {
    value = static_cast<float>(static_cast<double>(prng.next() >> 40) / 8388608.0 - 1.0);
    norm += static_cast<double>(value) * static_cast<double>(value);
  }
  const auto scale = norm > 0 ? 1.0 / std::sqrt(norm) : 0.0;
  for (auto& value : values) value = static_cast<float>(static_cast<double>(value) * scale);
  return values;
}

double relevance_of(std::string_view model, std::string_view query, std::string_view document) {
  Prng prng(hash_more(hash_more(hash_more(hash_of_model(model), query), {"\0", 1}), document));
  return (static_cast<double>(prng.next() >> 11) + 0.5) / 9007199254740992.0;
}

}  // namespace aiv::fake
