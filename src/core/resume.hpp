// When a replica dies in the middle of a streamed answer: whether and how another one continues it, so that the
// client sees one unbroken stream.
//
// SPECIFICATION
//
// - What the client has received is the truth. The continuation is asked for "rendered prompt + what was delivered";
//   it is never asked to say anything again.
//
// - Exactness. An event of llama-server ends at a token boundary: incomplete UTF-8 and text that may be the beginning
//   of a stop string are held back (tools/server/server-context.cpp, process_token). So each delivered event is
//   tokenised by itself and the ids follow the prompt; where these tokens do not add up to the text (a tokenizer that
//   puts a blank before every fragment, as SentencePiece models do) prompt and text go as one string. With
//   temperature 0 the first way gives the same tokens as an answer that was never broken. With sampling the
//   continuation is a valid one, not the same one: the generator starts anew.
//   Rationale for ids instead of text: a model may have written "he"+"llo" where the tokenizer would write "hello".
//
// - An answer that may yet become a call of a tool (tools offered, none begun) needs the engine's parser of its chat
//   route: the delivered text goes there as a begun message of the assistant, to be continued. Only where the engine
//   renders that as exactly "rendered prompt + what was delivered": its template may put more there (an empty thought), and
//   then nobody knows whether the answer had that too.
//
// - Not continued, but ended by an error event: what the engine parses out of raw text or steers by a state that is
//   lost with it. Calls of tools that have begun or are demanded; grammars and JSON schemas (the grammar would begin at its
//   root again and nest a second document); reasoning; log probabilities; images and audio.
//
// - Budget: max_tokens less the tokens delivered; with nothing left the answer ends with "length" without asking
//   anybody. Usage is counted once: the prompt of the request, and all tokens of the answer.
//
// - At most kResumesMax resumes per answer; two engines that ended under a request make it poison (the relay's rule).
//
// - A stop string is never split by a cut of an engine that holds back beginnings; StopSeam guards against those that
//   do not.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace aiv {

inline constexpr int kResumesMax = 3;
inline constexpr std::size_t kDeliveredBytesMax = std::size_t{256} * 1024;  // kept per stream; longer ones are not resumed
// One that failed under this request is asked again when it is all there is, after its back-off.
inline constexpr std::int64_t kSameReplicaAfterMs = 1'500;

// What is known of a stream when it breaks.
struct ResumeFacts {
  bool text_route = true;       // chat or completions
  bool tools_offered = false;   // the answer may call one
  bool tools_demanded = false;  // and must: it begins with the call
  bool constrained = false;     // grammar, json_schema, response_format other than text
  bool logprobs = false;
  bool media = false;           // images or audio in the prompt
  bool open_prefill = false;    // the client's last message is the assistant's and is not plain text
  bool tool_call_begun = false;
  bool reasoning_begun = false;
  bool other_delta = false;     // something delivered that is not text (a refusal, a kind not known here)
  bool delivered_too_long = false;
  int resumes = 0;              // that took place already
};

enum class ResumeObstacle : std::uint8_t {
  kNone,
  kNoText,
  kToolCall,
  kTemplate,  // found only by asking an engine
  kReasoning,
  kConstrained,
  kLogprobs,
  kMedia,
  kPrefill,
  kTooLong,
  kTooOften,
};
[[nodiscard]] ResumeObstacle resume_obstacle(const ResumeFacts& facts);
// For people, completing "the answer cannot be continued elsewhere because ..."; empty for kNone.
[[nodiscard]] std::string_view to_string(ResumeObstacle obstacle);

// A token as an engine's /tokenize tells it.
struct TokenPiece {
  std::int32_t id = 0;
  std::string bytes;
};
// Whether the tokens say exactly `text`, so that their ids may stand for it.
[[nodiscard]] bool tokens_say(std::span<const TokenPiece> tokens, std::string_view text);

// Tokens that may still be generated: nullopt without a limit (`max_tokens` 0), never negative.
[[nodiscard]] std::optional<std::int64_t> tokens_left(std::int64_t max_tokens, std::int64_t delivered);

// The seed of the n-th continuation: not the client's own, with which the generator would repeat its first draws.
// 32 bits, as llama-server takes; never 2^32 - 1, which means "random" there.
[[nodiscard]] std::int64_t resume_seed(std::int64_t seed, int resume);

// A figure of one engine that stands for a part of the answer, made into that of the whole.
struct AnswerUsage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  friend bool operator==(const AnswerUsage&, const AnswerUsage&) = default;
};
// `evaluated` and `predicted` as the continuing engine says them; its prompt held `delivered` tokens of the answer.
[[nodiscard]] AnswerUsage whole_usage(std::int64_t evaluated, std::int64_t predicted, std::int64_t delivered);

// Finds stop strings that begin in the delivered text and end behind the cut. Text goes in as it comes and out as it
// may be sent: what could still complete such a stop string is held back until that is decided. Only stop strings
// that reach over the cut are looked for, the engine knows the others.
class StopSeam {
 public:
  StopSeam() = default;
  StopSeam(std::vector<std::string> stops, std::string_view delivered);
  struct Out {
    std::string text;      // may be sent now
    bool stopped = false;  // a stop string is complete: the answer ends here
  };
  Out feed(std::string_view text);
  // What was held back, at the end of the answer.
  std::string rest();

 private:
  std::vector<std::string> open_;  // for each stop string that a tail of the delivered text begins: what is missing
  std::string held_;
};

}  // namespace aiv
