import { afterEach, describe, expect, it, vi } from 'vitest';
import { streamChat, type ChatPart } from '../src/lib/chat';
import { ApiError, errorFromResponse, readErrorBody } from '../src/lib/errors';

const chunk = (content: string, finish: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ delta: content === '' ? {} : { content }, finish_reason: finish }] })}\n\n`;

/** A server that sends these pieces and closes; every byte on its own, so that characters are cut in the middle. */
function serve(text: string, init: ResponseInit = {}) {
  const bytes = new TextEncoder().encode(text);
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  const fetching = vi.fn(async () => new Response(body, init));
  vi.stubGlobal('fetch', fetching);
  return fetching;
}

async function collect(): Promise<ChatPart[]> {
  const parts: ChatPart[] = [];
  for await (const part of streamChat('m', [{ role: 'user', content: 'hi' }], new AbortController().signal)) parts.push(part);
  return parts;
}
const textOf = (parts: ChatPart[]) => parts.map((p) => (p.type === 'text' ? p.text : '')).join('');

afterEach(() => vi.unstubAllGlobals());

describe('a streamed answer', () => {
  it('is put together from its pieces, with the count of the server', async () => {
    serve(`: keep-alive\n\n${chunk('Grüß ')}${chunk('Gott 🐢')}${chunk('', 'length')}data: {"choices":[],"usage":{"completion_tokens":7}}\n\ndata: [DONE]\n\n`);
    const parts = await collect();
    expect(textOf(parts)).toBe('Grüß Gott 🐢');
    expect(parts.at(-1)).toEqual({ type: 'end', finish: 'length', completionTokens: 7 });
  });

  it('asks as any client would', async () => {
    const fetching = serve('data: [DONE]\n\n');
    await collect();
    const [path, init] = fetching.mock.calls[0] as unknown as [string, RequestInit];
    expect(path).toBe('/v1/chat/completions');
    expect(JSON.parse(String(init.body))).toEqual({
      model: 'm', messages: [{ role: 'user', content: 'hi' }], stream: true, stream_options: { include_usage: true },
    });
  });

  it('that stops without an end is an error, never a short answer', async () => {
    for (const text of ['', chunk('half'), `${chunk('half')}${chunk('', 'stop')}`]) {
      serve(text);
      await expect(collect()).rejects.toMatchObject({ code: 'cut_off' });
    }
  });

  it('ends with the error the server put into it, in its words', async () => {
    serve(`${chunk('half')}data: {"error":{"message":"replica lost","type":"api_error","param":null,"code":"replica_failed"}}\n\n`);
    await expect(collect()).rejects.toMatchObject({ message: 'replica lost', code: 'replica_failed', title: 'The answer broke off' });
  });

  it('skips what is not JSON and what has no text', async () => {
    serve(`data: nonsense\n\ndata: null\n\ndata: {"choices":[{"delta":{"content":5}}]}\n\n${chunk('ok')}data: [DONE]\n\n`);
    expect(textOf(await collect())).toBe('ok');
  });

  it('that was refused says why and when to come back', async () => {
    serve('{"error":{"message":"loading on lab-pc3, about 14 s","type":"service_unavailable","param":null,"code":"loading"}}', {
      status: 503, headers: { 'retry-after': '14', 'x-request-id': 'r1' },
    });
    const error = await collect().then(() => null, (e: ApiError) => e);
    expect(error).toMatchObject({
      status: 503, title: 'The model is still loading', message: 'loading on lab-pc3, about 14 s', next: 'Try again in about 14 s.', requestId: 'r1',
    });
  });

  it('says when nobody answers', async () => {
    vi.stubGlobal('fetch', async () => {
      throw new TypeError('Failed to fetch');
    });
    await expect(collect()).rejects.toMatchObject({ title: 'The server cannot be reached' });
  });
});

describe('errors', () => {
  it('are read in the form of every API family', () => {
    expect(readErrorBody('{"error":{"message":"m","code":"c"}}')).toEqual({ message: 'm', code: 'c' });
    expect(readErrorBody('{"type":"error","error":{"type":"overloaded_error","message":"m"}}')).toEqual({ message: 'm', code: 'overloaded_error' });
    expect(readErrorBody('{"error":"text"}')).toEqual({ message: 'text', code: '' });
    for (const text of ['', '<html>', 'null', '[]', '{"error":5}', '{"error":{"message":5}}']) expect(readErrorBody(text)).toBeNull();
  });

  it('always have a sentence, whatever the status', () => {
    for (const status of [400, 401, 403, 404, 408, 413, 418, 429, 500, 502, 503, 504]) {
      const error = errorFromResponse(status, '', null, '');
      expect(error.title.length).toBeGreaterThan(5);
      expect(error.message).toContain(String(status));
    }
    expect(errorFromResponse(429, '', 'Wed, 21 Oct', '').next).toBe('Try again in a moment.');
  });
});
