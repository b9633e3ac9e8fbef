#include "core/resume.hpp"

#include <algorithm>
#include <utility>

namespace aiv {

ResumeObstacle resume_obstacle(const ResumeFacts& facts) {
  if (!facts.text_route) return ResumeObstacle::kNoText;
  if (facts.tool_call_begun || facts.tools_demanded) return ResumeObstacle::kToolCall;
  if (facts.reasoning_begun) return ResumeObstacle::kReasoning;
  if (facts.constrained) return ResumeObstacle::kConstrained;
  if (facts.logprobs) return ResumeObstacle::kLogprobs;
  if (facts.media) return ResumeObstacle::kMedia;
  if (facts.open_prefill) return ResumeObstacle::kPrefill;
  if (facts.other_delta) return ResumeObstacle::kNoText;
  if (facts.delivered_too_long) return ResumeObstacle::kTooLong;
  if (facts.resumes >= kResumesMax) return ResumeObstacle::kTooOften;
  return ResumeObstacle::kNone;
}

std::string_view to_string(ResumeObstacle obstacle) {
  switch (obstacle) {
    case ResumeObstacle::kNone: return "";
    case ResumeObstacle::kNoText: return "it is not plain text";
    case ResumeObstacle::kToolCall: return "it is, or must become, a call of a tool";
    case ResumeObstacle::kTemplate: return "tools are offered, and the template of the model would add to what it said";
    case ResumeObstacle::kReasoning: return "it began with reasoning";
    case ResumeObstacle::kConstrained: return "its form is bound by a grammar or a schema";
    case ResumeObstacle::kLogprobs: return "log probabilities were asked for";
    case ResumeObstacle::kMedia: return "its prompt has images or audio";
    case ResumeObstacle::kPrefill: return "its prompt ends in a message of the assistant that is not plain text";
    case ResumeObstacle::kTooLong: return "it is too long";
    case ResumeObstacle::kTooOften: return "it was continued too often already";
  }
  return "";
}

bool tokens_say(std::span<const TokenPiece> tokens, std::string_view text) {
  for (const TokenPiece& token : tokens) {
    if (!text.starts_with(token.bytes)) return false;
    text.remove_prefix(token.bytes.size());
  }
  return text.empty();
}

std::optional<std::int64_t> tokens_left(std::int64_t max_tokens, std::int64_t delivered) {
  if (max_tokens <= 0) return std::nullopt;
  return std::max<std::int64_t>(max_tokens - delivered, 0);
}

std::int64_t resume_seed(std::int64_t seed, int resume) {
  // splitmix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
  std::uint64_t z = static_cast<std::uint64_t>(seed) + 0x9e3779b97f4a7c15ULL * static_cast<std::uint64_t>(resume + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<std::int64_t>((z ^ (z >> 31)) % 0xffffffffULL);
}

AnswerUsage whole_usage(std::int64_t evaluated, std::int64_t predicted, std::int64_t delivered) {
  return {.prompt_tokens = std::max<std::int64_t>(evaluated - delivered, 0),
          .completion_tokens = std::max<std::int64_t>(predicted, 0) + delivered};
}

StopSeam::StopSeam(std::vector<std::string> stops, std::string_view delivered) {
  for (const std::string& stop : stops) {
    const std::size_t longest = std::min(stop.size(), delivered.size() + 1);
    for (std::size_t begun = 1; begun < longest; ++begun) {
      if (delivered.ends_with(std::string_view(stop).substr(0, begun))) open_.push_back(stop.substr(begun));
    }
  }
}

StopSeam::Out StopSeam::feed(std::string_view text) {
  if (open_.empty()) return {.text = std::string(text)};
  held_ += text;
  for (const std::string& missing : open_) {
    if (held_.starts_with(missing)) {
      held_.clear();
      open_.clear();
      return {.stopped = true};
    }
  }
  std::erase_if(open_, [this](const std::string& missing) { return !missing.starts_with(held_); });
  if (!open_.empty()) return {};
  return {.text = std::exchange(held_, {})};
}

std::string StopSeam::rest() {
  open_.clear();
  return std::exchange(held_, {});
}

}  // namespace aiv
