import { describe, expect, it } from 'vitest';
import { EVENT_CHARS_MAX, SseParser } from '../src/lib/sse';

function whole(text: string) {
  return new SseParser().feed(text);
}

describe('server-sent events', () => {
  it('reads one event per empty line', () => {
    expect(whole('data: a\n\ndata: b\n\n').map((e) => e.data)).toEqual(['a', 'b']);
  });

  it('gives the same events however the bytes are cut', () => {
    const text = '\ufeff: hello\r\nevent: x\r\ndata: one\r\ndata:two\r\nid: 7\r\n\r\ndata: {"a":"b c"}\n\ndata\r\rdata: [DONE]\n\n';
    const expected = whole(text);
    expect(expected).toEqual([
      { event: 'x', data: 'one\ntwo', id: '7' },
      { event: 'message', data: '{"a":"b c"}', id: '7' },
      { event: 'message', data: '', id: '7' },
      { event: 'message', data: '[DONE]', id: '7' },
    ]);
    for (let first = 0; first <= text.length; first++) {
      for (let second = first; second <= text.length; second++) {
        const parser = new SseParser();
        const events = [text.slice(0, first), text.slice(first, second), text.slice(second)].flatMap((p) => parser.feed(p));
        expect(events).toEqual(expected);
      }
    }
  });

  it('drops comments, unknown fields and an unfinished event', () => {
    expect(whole(': keep-alive\n\nretry: 5\nfoo: bar\n\ndata: half')).toEqual([]);
  });

  it('takes off one space after the colon and no more', () => {
    expect(whole('data:  two\n\n')[0]?.data).toBe(' two');
  });

  it('refuses an event without end', () => {
    const parser = new SseParser();
    const piece = 'x'.repeat(EVENT_CHARS_MAX / 2);
    parser.feed('data: ' + piece);
    expect(() => parser.feed(piece)).toThrow(/4 MiB/);
    const lines = new SseParser();
    expect(() => {
      for (let i = 0; i < 5; i++) lines.feed(`data: ${'y'.repeat(EVENT_CHARS_MAX / 4)}\n`);
    }).toThrow(/4 MiB/);
  });
});
