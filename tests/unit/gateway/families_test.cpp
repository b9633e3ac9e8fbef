// The API families beside OpenAI's chat: what their requests become, and what an engine's answer becomes in
// their words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/api/anthropic.hpp"
#include "gateway/api/embeddings.hpp"
#include "gateway/api/ollama.hpp"
#include "gateway/api/responses.hpp"

namespace aiv::gateway {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TranslationContext context() {
  return {.request_id = "req-0123456789abcdef", .unix_ms = [] { return std::int64_t{1'700'000'000'000}; }};
}

Json chat_of(const Translation& translation) {
  EXPECT_TRUE(translation) << translation.error().message;
  return translation ? parse_json(translation->body).value_or(Json()) : Json();
}

// A stream as llama-server sends it.
std::string role() {
  return R"({"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]})";
}
std::string text(const std::string& piece) {
  return R"({"choices":[{"finish_reason":null,"index":0,"delta":{"content":")" + piece + R"("}}]})";
}
std::string thought(const std::string& piece) {
  return R"({"choices":[{"finish_reason":null,"index":0,"delta":{"reasoning_content":")" + piece + R"("}}]})";
}
std::string call(int index, const std::string& fields) {
  return R"({"choices":[{"finish_reason":null,"index":0,"delta":{"tool_calls":[{"index":)" +
         std::to_string(index) + "," + fields + "}]}}]}";
}
std::string finish(const std::string& reason) {
  return R"({"choices":[{"finish_reason":")" + reason + R"(","index":0,"delta":{}}]})";
}
std::string usage() {
  return R"({"choices":[],"usage":{"completion_tokens":5,"prompt_tokens":9,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4}},)"
         R"("timings":{"prompt_ms":20,"predicted_ms":50}})";
}

std::string stream_of(AnswerForm& form, const std::vector<std::string>& events, bool whole = true) {
  std::string out;
  for (const std::string& event : events) form.event(out, event);
  if (whole) form.done(out);
  return out;
}

std::vector<std::string> event_names(const std::string& stream) {
  std::vector<std::string> names;
  for (std::size_t at = 0; (at = stream.find("event: ", at)) != std::string::npos;) {
    at += 7;
    names.push_back(stream.substr(at, stream.find('\n', at) - at));
  }
  return names;
}

TEST(AnthropicRequest, BecomesAChatRequestWithSystemToolsAndResults) {
  const Json chat = chat_of(translate_anthropic(
      R"({"model":"m","max_tokens":7,"system":[{"type":"text","text":"be "},{"type":"text","text":"brief"}],
    "stop_sequences":["END"],"tool_choice":{"type":"tool","name":"b"},
    "tools":[{"name":"a","input_schema":{"type":"object"}},{"name":"b","input_schema":{"type":"object"}}],
    "messages":[{"role":"user","content":"hi"},
      {"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"I ask"},{"type":"tool_use","id":"t1","name":"b","input":{"x":1}}]},
      {"role":"user","content":[{"type":"text","text":"so?"},{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"42"}]}]}]})",
      context()));
  ASSERT_EQ(chat["messages"].size(), 5u);
  EXPECT_EQ(chat["messages"][0]["content"], "be brief");
  EXPECT_EQ(chat["messages"][2]["reasoning_content"], "hm");
  EXPECT_EQ(chat["messages"][2]["tool_calls"][0]["function"]["arguments"], "{\"x\":1}");
  EXPECT_EQ(chat["messages"][3]["role"], "tool") << "a result stands right behind its call";
  EXPECT_EQ(chat["messages"][3]["content"], "42");
  EXPECT_EQ(chat["messages"][4]["content"], "so?");
  EXPECT_EQ(chat["tools"].size(), 1u) << "the chosen tool alone, which an engine must then use";
  EXPECT_EQ(chat["tool_choice"], "required");
  EXPECT_EQ(chat["stop"][0], "END");
}

TEST(AnthropicRequest, SaysWhichFieldIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"model":"m"})", "messages"},
      {R"({"model":"m","messages":[{"role":"system","content":"x"}]})", "messages[0].role"},
      {R"({"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://x"}}]}]})",
       "messages[0].content[0].source"},
      {R"({"model":"m","messages":[{"role":"user","content":[{"type":"video"}]}]})",
       "messages[0].content[0].type"},
      {R"({"model":"m","messages":[],"tools":[{"type":"bash_20250124","name":"bash"}]})", "tools[0].type"},
      {R"({"model":"m","messages":[],"tools":[{"name":"a"}],"tool_choice":{"type":"tool","name":"b"}})",
       "tool_choice.name"},
  };
  for (const auto& [body, param] : cases) {
    const auto translated = translate_anthropic(body, context());
    ASSERT_FALSE(translated) << body;
    EXPECT_EQ(translated.error().status, 400);
    EXPECT_EQ(translated.error().param, param) << body;
  }
  EXPECT_FALSE(translate_anthropic("[]", context()));
  EXPECT_FALSE(translate_anthropic("{\"a\":\xff}", context()));
}

TEST(AnthropicStream, OpensAndClosesItsBlocksInOrder) {
  AnthropicForm form("m", "req-0123456789abcdef", "");
  const std::string out = stream_of(
      form, {role(), thought("hm"), text("a"), text("b"), call(0, R"("id":"c1","function":{"name":"f"})"),
             call(0, R"("function":{"arguments":"{}"})"), call(1, R"("id":"c2","function":{"name":"g"})"),
             finish("tool_calls"), usage()});
  EXPECT_THAT(event_names(out),
              ::testing::ElementsAre("message_start", "content_block_start", "content_block_delta",
                                     "content_block_stop", "content_block_start", "content_block_delta",
                                     "content_block_delta", "content_block_stop", "content_block_start",
                                     "content_block_delta", "content_block_stop", "content_block_start",
                                     "content_block_stop", "message_delta", "message_stop"));
  EXPECT_THAT(out,
              HasSubstr(R"("index":3,"content_block":{"type":"tool_use","id":"c2","name":"g","input":{}})"));
  EXPECT_THAT(out, HasSubstr(R"("stop_reason":"tool_use")"));
  EXPECT_THAT(
      out,
      HasSubstr(
          R"("usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":5})"));
}

TEST(AnthropicStream, SaysNothingBeforeThereIsSomethingSoThatTheAttemptCanStillChange) {
  AnthropicForm form("m", "req-1", "");
  const std::string progress =
      R"({"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":12,"cache":2}})";
  EXPECT_EQ(stream_of(form, {role(), progress}, false), "");
  EXPECT_THAT(
      stream_of(form, {text("a")}, false),
      HasSubstr(R"("usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":2)"));
}

TEST(AnthropicStream, LeavesOutAPrefilledTextWhereverTheEventsCutIt) {
  for (const std::vector<std::string>& events :
       std::vector<std::vector<std::string>>{{text("Once upon")},
                                             {text("On"), text("ce upon")},
                                             {text("O"), text("n"), text("c"), text("e"), text(" upon")}}) {
    AnthropicForm form("m", "req-1", "Once");
    const std::string out = stream_of(form, events);
    EXPECT_THAT(out, HasSubstr(R"("text":" upon"})")) << out;
    EXPECT_THAT(out, Not(HasSubstr("Once")));
  }
  AnthropicForm other("m", "req-1", "Once");
  EXPECT_THAT(stream_of(other, {text("Twice")}), HasSubstr("Twice"))
      << "an engine that does not repeat it loses nothing";
}

TEST(OllamaRequest, BecomesAChatRequestThatStreamsUnlessToldOtherwise) {
  const Json chat = chat_of(translate_ollama_chat(
      R"({"model":"m","format":"json","think":false,"options":{"num_predict":-1,"temperature":0.1,"num_ctx":99},
    "messages":[{"role":"user","content":"look","images":["iVBORw0KGgoAAA"]},
      {"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},{"role":"tool","tool_name":"f","content":"7"}]})",
      context()));
  EXPECT_EQ(chat["stream"], true);
  EXPECT_FALSE(chat.contains("max_tokens"));
  EXPECT_FALSE(chat.contains("num_ctx"));
  EXPECT_EQ(chat["temperature"], 0.1);
  EXPECT_EQ(chat["response_format"]["type"], "json_object");
  EXPECT_EQ(chat["messages"][0]["content"][1]["image_url"]["url"], "data:image/png;base64,iVBORw0KGgoAAA");
  EXPECT_EQ(chat["messages"][1]["tool_calls"][0]["id"], chat["messages"][2]["tool_call_id"]);
  EXPECT_EQ(chat_of(translate_ollama_generate(R"({"name":"m","prompt":"p","raw":true,"stream":false})",
                                              context()))["prompt"],
            "p");
}

TEST(OllamaEmbedding, HasTheDimensionsThatWereAskedFor) {
  const auto translated = translate_ollama_embed(R"({"model":"m","input":"x","dimensions":2})", context(), false);
  ASSERT_TRUE(translated);
  const std::string answer = R"({"data":[{"embedding":[3,4,12],"index":0,"object":"embedding"}],"usage":{"prompt_tokens":2}})";
  const auto cut = translated->form->whole(answer);
  ASSERT_TRUE(cut) << cut.error().message();
  const Json embedding = (*parse_json(*cut))["embeddings"][0];
  ASSERT_EQ(embedding.size(), 2U);
  EXPECT_NEAR(embedding[0].get<double>(), 0.6, 1e-6);
  EXPECT_NEAR(embedding[1].get<double>(), 0.8, 1e-6);
  const auto all = translate_ollama_embed(R"({"model":"m","input":"x","dimensions":null})", context(), false);
  ASSERT_TRUE(all);
  EXPECT_EQ((*parse_json(*all->form->whole(answer)))["embeddings"][0].size(), 3U);
}

TEST(OllamaRequest, WithoutAPromptOnlyAsksForTheModel) {
  EXPECT_THAT(ollama_load_answer(R"({"model":"m"})", false, 0), HasSubstr(R"("done_reason":"load")"));
  EXPECT_THAT(ollama_load_answer(R"({"model":"m","messages":[],"keep_alive":0})", true, 0),
              HasSubstr(R"("done_reason":"unload")"));
  EXPECT_EQ(ollama_load_answer(R"({"model":"m","prompt":"x","keep_alive":0})", false, 0), "");
}

TEST(OllamaStream, IsLinesOfWhichOnlyTheLastIsDone) {
  OllamaForm form(OllamaForm::Kind::kChat, "m", context().unix_ms);
  const std::string out =
      stream_of(form, {role(), text("a"), call(0, R"("id":"x","function":{"name":"f","arguments":"{\"a\""})"),
                       call(0, R"("function":{"arguments":":1}"})"), finish("tool_calls"), usage()});
  std::vector<Json> lines;
  for (std::size_t at = 0; at < out.size();) {
    const std::size_t end = out.find('\n', at);
    ASSERT_NE(end, at) << "an empty line makes clients warn";
    lines.push_back(parse_json(out.substr(at, end - at)).value_or(Json()));
    at = end + 1;
  }
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["message"]["content"], "a");
  EXPECT_EQ(lines[1]["message"]["tool_calls"][0]["function"]["arguments"]["a"], 1);
  EXPECT_EQ(lines[2]["done"], true);
  EXPECT_EQ(lines[2]["eval_count"], 5);
  EXPECT_EQ(lines[2]["eval_duration"], 50'000'000);
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) EXPECT_EQ(lines[i]["done"], false);
}

TEST(ResponsesRequest, BecomesAChatRequest) {
  const Json chat =
      chat_of(translate_responses(R"({"model":"m","instructions":"be brief","max_output_tokens":9,
    "input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"reasoning","id":"r","summary":[]},
      {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"7"}],
    "text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}}}})",
                                  context()));
  EXPECT_EQ(chat["messages"].size(), 4u);
  EXPECT_EQ(chat["messages"][1]["content"], "hi");
  EXPECT_EQ(chat["messages"][2]["tool_calls"][0]["id"], "c");
  EXPECT_EQ(chat["max_tokens"], 9);
  EXPECT_EQ(chat["response_format"]["json_schema"]["schema"]["type"], "object");
  for (const char* field : {"previous_response_id", "conversation"}) {
    const auto refused =
        translate_responses(std::string(R"({"model":"m","input":"x",")") + field + R"(":"y"})", context());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().param, field);
  }
}

TEST(ResponsesStream, NumbersItsEventsAndEndsWithTheWholeAnswer) {
  ResponsesForm form("m", "req-0123456789abcdef", 1, R"("tools":[])");
  const std::string out = stream_of(form, {role(), text("a"), text("b"), finish("length"), usage()});
  const auto names = event_names(out);
  EXPECT_EQ(names.front(), "response.created");
  EXPECT_EQ(names.back(), "response.incomplete");
  for (std::size_t i = 0; i < names.size(); ++i)
    EXPECT_THAT(out, HasSubstr("\"sequence_number\":" + std::to_string(i) + ","));
  EXPECT_THAT(out, HasSubstr(R"("text":"ab")"));
  EXPECT_THAT(out, Not(HasSubstr("[DONE]")));
}

TEST(Errors, AreInTheWordsOfTheirFamily) {
  const ApiError busy = overloaded("busy", "overloaded", 3);
  EXPECT_EQ(error_status(ApiFamily::kAnthropic, busy), 529);
  EXPECT_EQ(error_status(ApiFamily::kOllama, busy), 503);
  EXPECT_EQ(error_body(ApiFamily::kOllama, busy, "r"), R"({"error":"busy"})");
  EXPECT_EQ(error_body(ApiFamily::kAnthropic, unauthorized(), "r").substr(0, 54),
            R"({"type":"error","error":{"type":"authentication_error")");
  EXPECT_EQ(family_of("/v1/models", {{"anthropic-version", "2023-06-01"}}), ApiFamily::kAnthropic);
  EXPECT_EQ(family_of("/v1/models", {}), ApiFamily::kOpenAi);
  EXPECT_EQ(family_of("/api/nothing", {}), ApiFamily::kOllama);
}

TEST(EmbeddingCut, KeepsTheFirstDimensionsAtLengthOne) {
  const std::string body = R"({"model":"e","data":[{"embedding":[3,4,12],"index":0}]})";
  CutEmbeddingForm form("name", 2, false);
  const Json cut = parse_json(form.whole(body).value_or("")).value_or(Json());
  EXPECT_EQ(cut["model"], "name");
  ASSERT_EQ(cut["data"][0]["embedding"].size(), 2u);
  EXPECT_NEAR(cut["data"][0]["embedding"][0].get<double>(), 0.6, 1e-6);
  CutEmbeddingForm packed("name", 2, true);
  EXPECT_EQ(parse_json(packed.whole(body).value_or("")).value_or(Json())["data"][0]["embedding"],
            "mpkZP83MTD8=");
  CutEmbeddingForm more("name", 4, false);
  EXPECT_EQ(more.whole(body).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace aiv::gateway
