/**
 * Server-sent events from a byte stream in pieces of any size, as the HTML standard's "event stream interpretation"
 * says (section 9.2.6): lines end in LF, CR or CRLF, a leading byte order mark and comments are dropped, several
 * `data` lines are joined by LF, an empty line dispatches, an unfinished event at the end is discarded.
 */
export interface ServerEvent {
  event: string;
  data: string;
  id: string;
}

/** Longest unfinished event held, in characters. A server that sends more without an empty line is refused. */
export const EVENT_CHARS_MAX = 4 * 1024 * 1024;

export class SseParser {
  private rest = '';
  private started = false;
  private data: string[] = [];
  private dataChars = 0;
  private event = '';
  private id = '';

  /** Takes the next piece of text and returns the events it completes. Throws above EVENT_CHARS_MAX. */
  feed(piece: string): ServerEvent[] {
    if (!this.started && piece.length > 0) {
      this.started = true;
      if (piece.charCodeAt(0) === 0xfeff) piece = piece.slice(1);
    }
    const text = this.rest + piece;
    const events: ServerEvent[] = [];
    let from = 0;
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code !== 10 && code !== 13) continue;
      // A CR at the very end may be the first half of CRLF: wait for the next piece.
      if (code === 13 && at + 1 === text.length) break;
      this.line(text.slice(from, at), events);
      if (code === 13 && text.charCodeAt(at + 1) === 10) at++;
      from = at + 1;
    }
    this.rest = text.slice(from);
    if (this.rest.length + this.dataChars > EVENT_CHARS_MAX) {
      throw new Error('The server sent an event longer than 4 MiB.');
    }
    return events;
  }

  private line(line: string, events: ServerEvent[]): void {
    if (line === '') {
      if (this.data.length > 0) {
        events.push({ event: this.event || 'message', data: this.data.join('\n'), id: this.id });
      }
      this.data = [];
      this.dataChars = 0;
      this.event = '';
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'data') {
      this.data.push(value);
      this.dataChars += value.length;
    } else if (field === 'event') {
      this.event = value;
    } else if (field === 'id' && !value.includes('\0')) {
      this.id = value;
    }
  }
}
