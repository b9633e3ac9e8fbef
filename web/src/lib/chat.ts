/** One answer over the public API, as any OpenAI client would ask for it. */
import { call, headers } from './api';
import { cutOff, errorFromStream, unreachable } from './errors';
import { SseParser } from './sse';

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

export type ChatPart =
  | { type: 'head'; requestId: string; replica: string }
  | { type: 'text'; text: string }
  | { type: 'reasoning'; text: string }
  | { type: 'end'; finish: string; completionTokens: number | null };

interface Chunk {
  choices?: { delta?: { content?: unknown; reasoning_content?: unknown }; finish_reason?: unknown }[];
  usage?: { completion_tokens?: unknown } | null;
  error?: unknown;
}

/**
 * Yields the parts of an answer as they come. Ends normally only when the server said that the answer is complete;
 * throws an ApiError otherwise, and an AbortError when `signal` fires. A proxy that closes the connection half-way
 * is thus never taken for the end.
 */
export async function* streamChat(
  model: string,
  messages: ChatMessage[],
  signal: AbortSignal,
): AsyncGenerator<ChatPart> {
  const response = await call('/v1/chat/completions', {
    method: 'POST',
    // The debug header has an effect with an admin's key only: the answer then says which replica gave it.
    headers: headers({ 'content-type': 'application/json', 'x-aiv-debug': '1' }),
    body: JSON.stringify({ model, messages, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const requestId = response.headers.get('x-request-id') ?? '';
  yield { type: 'head', requestId, replica: response.headers.get('x-aiv-replica') ?? '' };
  if (response.body === null) throw cutOff(requestId);

  const reader = response.body.getReader();
  try {
    yield* readStream(reader, requestId, signal);
  } finally {
    // Leaving early must close the connection, or the engine would go on for nobody.
    reader.cancel().catch(() => undefined);
  }
}

async function* readStream(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  requestId: string,
  signal: AbortSignal,
): AsyncGenerator<ChatPart> {
  const decoder = new TextDecoder();
  const parser = new SseParser();
  let finish = '';
  let completionTokens: number | null = null;
  for (;;) {
    let piece: ReadableStreamReadResult<Uint8Array>;
    try {
      piece = await reader.read();
    } catch (error) {
      if (signal.aborted) throw error;
      throw finish === '' ? cutOff(requestId) : unreachable(location.host);
    }
    if (piece.done) break;
    for (const event of parser.feed(decoder.decode(piece.value, { stream: true }))) {
      if (event.data === '[DONE]') {
        yield { type: 'end', finish: finish || 'stop', completionTokens };
        return;
      }
      const chunk = parseChunk(event.data);
      if (chunk === null) continue;
      if (chunk.error !== undefined || event.event === 'error') throw errorFromStream(event.data, requestId);
      if (typeof chunk.usage?.completion_tokens === 'number') completionTokens = chunk.usage.completion_tokens;
      const choice = chunk.choices?.[0];
      if (choice === undefined) continue;
      if (typeof choice.finish_reason === 'string') finish = choice.finish_reason;
      const reasoning = choice.delta?.reasoning_content;
      if (typeof reasoning === 'string' && reasoning !== '') yield { type: 'reasoning', text: reasoning };
      const text = choice.delta?.content;
      if (typeof text === 'string' && text !== '') yield { type: 'text', text };
    }
  }
  throw cutOff(requestId);
}

function parseChunk(data: string): Chunk | null {
  try {
    const json: unknown = JSON.parse(data);
    return typeof json === 'object' && json !== null ? (json as Chunk) : null;
  } catch {
    return null;
  }
}
