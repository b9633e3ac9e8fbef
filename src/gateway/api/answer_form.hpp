// How one API family says what an engine said. The relay speaks with every engine in OpenAI's form, whatever
// the client's family, so that slots, retries, stalls and resumes are one piece of code; a form turns the
// events that come out of it into the client's. Without a form an answer is OpenAI's and its bytes pass as
// they came.
//
// RULES
// - event() gets whole events in order, each once; done() comes after the last, and only when the answer is
// whole.
// - A form may hold back what it was told (a role, a count of prompt tokens) until there is something to say:
// as long
//   as nothing has left, the relay can still start again on another replica, and calls forget() then.
// - A form never throws and takes any bytes: an event that is not what it should be adds nothing.
#pragma once
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "gateway/api/family.hpp"

namespace aiv::gateway {

class AnswerForm {
 public:
  virtual ~AnswerForm() = default;
  [[nodiscard]] virtual ApiFamily family() const = 0;
  [[nodiscard]] virtual std::string_view stream_type() const { return "text/event-stream"; }
  // One event's data (JSON) of the engine's stream.
  virtual void event(std::string& out, std::string_view data) = 0;
  // The engine's stream is whole.
  virtual void done(std::string& out) = 0;
  // Something that shows that the connection lives and changes nothing.
  virtual void life_sign(std::string& out) { out += ": keep-alive\n\n"; }
  // The answer to a request that is not streamed, from the engine's whole answer; an error is the engine's
  // fault.
  virtual Result<std::string> whole(std::string_view body) = 0;
  // The last event of a stream that broke.
  virtual std::string error_event(const ApiError& error) = 0;
  // Another attempt begins and nothing of this one has left.
  virtual void forget() = 0;
};

}  // namespace aiv::gateway
