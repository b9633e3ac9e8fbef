/** The chat on the page: its turns, the answer under way, and what is kept in this browser between visits. */
import { streamChat, type ChatMessage } from './chat';
import { ApiError } from './errors';
import { local, session, store, stored } from './storage';
import { user } from './session.svelte';
import { cluster } from './cluster.svelte';

export interface Origin {
  model: string;
  replica: string;
  /** Time to the first text, measured here; ms. */
  firstMs: number | null;
  /** From the first to the last text. */
  textMs: number;
  tokens: number | null;
  /** The server sent a count; else `tokens` counts pieces. */
  counted: boolean;
}

export interface Turn {
  id: number;
  role: 'user' | 'assistant';
  text: string;
  reasoning: string;
  state: 'waiting' | 'streaming' | 'done' | 'stopped' | 'failed';
  finish: string;
  error: { title: string; message: string; next: string; requestId: string } | null;
  origin: Origin | null;
}

const TURNS = 'aiv.chat';
const MODEL = 'aiv.model';
/** Turns kept in the tab's storage; older ones are dropped from it first. */
const TURNS_KEPT = 100;

class Chat {
  turns = $state<Turn[]>(restore());
  model = $state(stored(local, MODEL) ?? '');
  busy = $state(false);
  /** What stands in the message field. */
  draft = $state('');

  private abort: AbortController | null = null;
  private nextId = this.turns.reduce((max, turn) => Math.max(max, turn.id), 0) + 1;

  choose(model: string): void {
    this.model = model;
    store(local, MODEL, model);
  }

  clear(): void {
    this.stop();
    this.turns = [];
    this.keep();
  }

  stop(): void {
    this.abort?.abort();
  }

  async send(text: string): Promise<void> {
    if (this.busy || text.trim() === '' || this.model === '') return;
    this.turns.push({
      id: this.nextId++, role: 'user', text, reasoning: '', state: 'done', finish: '', error: null, origin: null,
    });
    await this.answer();
  }

  /** Takes the question `turn` and all after it back into the message field. */
  edit(turn: Turn): void {
    if (this.busy) return;
    const at = this.turns.findIndex((t) => t.id === turn.id);
    if (at < 0) return;
    this.draft = turn.text;
    this.turns = this.turns.slice(0, at);
    this.keep();
  }

  /** Drops the answer `turn` and all after it, and asks again. */
  async regenerate(turn: Turn): Promise<void> {
    if (this.busy || this.model === '') return;
    const at = this.turns.findIndex((t) => t.id === turn.id);
    if (at <= 0) return;
    this.turns = this.turns.slice(0, at);
    await this.answer();
  }

  private async answer(): Promise<void> {
    const messages: ChatMessage[] = this.turns
      .filter((t) => t.text !== '')
      .map((t) => ({ role: t.role, content: t.text }));
    const origin: Origin = {
      model: this.model, replica: '', firstMs: null, textMs: 0, tokens: null, counted: false,
    };
    this.turns.push({
      id: this.nextId++, role: 'assistant', text: '', reasoning: '', state: 'waiting', finish: '', error: null,
      origin,
    });
    const turn = this.turns[this.turns.length - 1]!;
    const abort = new AbortController();
    this.abort = abort;
    this.busy = true;
    try {
      await this.read(turn, messages, abort.signal);
      turn.state = 'done';
    } catch (error) {
      if (abort.signal.aborted) turn.state = 'stopped';
      else this.fail(turn, error);
    } finally {
      this.busy = false;
      this.abort = null;
      this.keep();
    }
  }

  private async read(turn: Turn, messages: ChatMessage[], signal: AbortSignal): Promise<void> {
    const origin = turn.origin!;
    const asked = performance.now();
    let first = 0;
    let pieces = 0;
    for await (const part of streamChat(this.model, messages, signal)) {
      if (part.type === 'head') {
        origin.replica = part.replica;
      } else if (part.type === 'end') {
        turn.finish = part.finish;
        origin.tokens = part.completionTokens ?? pieces;
        origin.counted = part.completionTokens !== null;
      } else {
        const now = performance.now();
        if (pieces === 0) {
          first = now;
          origin.firstMs = now - asked;
          turn.state = 'streaming';
        }
        pieces++;
        origin.textMs = now - first;
        if (part.type === 'text') turn.text += part.text;
        else turn.reasoning += part.text;
      }
    }
  }

  private fail(turn: Turn, error: unknown): void {
    turn.state = 'failed';
    if (error instanceof ApiError) {
      const { title, message, next, requestId } = error;
      turn.error = { title, message, next, requestId };
      if (error.status === 401) user.refuseKey();
    } else {
      turn.error = {
        title: 'The page could not read the answer', message: String(error), next: 'Regenerate to try again.',
        requestId: '',
      };
    }
    cluster.soon();
  }

  private keep(): void {
    store(session, TURNS, this.turns.length === 0 ? null : JSON.stringify(this.turns.slice(-TURNS_KEPT)));
  }
}

function restore(): Turn[] {
  try {
    const turns: unknown = JSON.parse(stored(session, TURNS) ?? '[]');
    if (!Array.isArray(turns)) return [];
    return turns.filter(
      (t): t is Turn =>
        typeof t === 'object' && t !== null && typeof t.id === 'number' && typeof t.text === 'string' &&
        (t.role === 'user' || t.role === 'assistant'),
    );
  } catch {
    return [];
  }
}

export const chat = new Chat();
