// The public port: one handler that finds the route, asks who is calling, and answers or relays.
//
// Order (security): head within limits (net/http1) -> route -> key -> body within limits -> parse -> admission.
// Authorisation comes before anything is looked up, so answers tell a stranger nothing.
#pragma once
#include <expected>
#include <memory>
#include <optional>
#include <vector>

#include "base/json.hpp"
#include "core/openai_request.hpp"
#include "gateway/api/family.hpp"
#include "gateway/api/model_facts.hpp"
#include "gateway/api_table.hpp"
#include "gateway/auth.hpp"
#include "gateway/state.hpp"

namespace aiv::gateway {

class PublicApi {
 public:
  explicit PublicApi(GatewayState& state) : state_(state) {}
  net::Task<> handle(net::ExchangePtr exchange);

 private:
  struct Context {
    net::ExchangePtr exchange;
    Caller caller;
    std::string request_id;
    net::Clock::time_point arrived;
    net::Headers headers;
    AccessRecord record;
    std::string model;  // what the record points to
    std::string replica;
    std::string end;
    ApiFamily family = ApiFamily::kOpenAi;
    // What take_in() says instead; apart, because a context lives as long as its stream.
    std::unique_ptr<ApiError> refusal{};
    std::string ready_answer{};
  };
  using ModelList = std::vector<const RouteModel*>;
  net::Task<> serve(Context& context);
  net::Task<> dispatch(Context& context, ApiRoute route);
  net::Task<> answer_preflight(Context& context, net::ResponseHead head);
  // api/serve.cpp: requests that go to an engine
  struct Inference;  // a request that was taken in, until it has ended
  net::Task<> inference(Context& context, ApiRoute route);
  std::unique_ptr<Inference> take_in(Context& context, ApiRoute route, std::string body);
  net::Task<> not_taken_in(Context& context);
  void note_result(Context& context, Inference& job);
  net::Task<> count_tokens(Context& context);
  net::Task<std::optional<std::string>> read_json_body(Context& context);
  std::expected<ModelPtr, ApiError> model_for(const Context& context, const std::string& name, Endpoint endpoint) const;
  // api/models.cpp: what there is
  net::Task<> list_models(Context& context);
  net::Task<> show_model(Context& context);
  net::Task<> ollama_tags(Context& context, bool running);
  // A body that names a model; `model` is nullptr where there is none of that name, or none that the key may use.
  struct NamedModel {
    Json body;
    std::string name;
    RoutesPtr routes;  // holds what `model` points to
    const RouteModel* model = nullptr;
  };
  net::Task<std::optional<NamedModel>> read_named_model(Context& context);
  net::Task<> ollama_show(Context& context);
  net::Task<> ollama_pull(Context& context);
  [[nodiscard]] ModelList models_of(const Context& context, const Routes& routes) const;
  net::Task<> health(Context& context);
  net::Task<> metrics(Context& context);
  net::Task<> usage(Context& context);
  net::Task<> relay_to_controller(Context& context);
  net::Task<> page(Context& context);
  net::Task<> answer(Context& context, int status, std::string json);
  net::Task<> refuse(Context& context, ApiError error);
  void finish_record(Context& context);

  GatewayState& state_;
  ModelBook models_;
};

// Whether a browser's request may come from where it says (DNS rebinding, cross-site posts): `Host` must be a literal
// address, localhost, or the name of a certificate we serve; an `Origin`, if present, must be of the same host.
[[nodiscard]] bool same_origin(const net::Headers& headers);
[[nodiscard]] bool host_is_local(std::string_view host);
// A caller's own request id as we echo it: at most 128 visible ASCII characters, else empty.
[[nodiscard]] std::string echoed_request_id(const net::Headers& headers);
// Content-Length as announced; 0 without one.
[[nodiscard]] std::size_t announced_length(const net::Headers& headers);

}  // namespace aiv::gateway
