/** Who is using the page: the key, whether the server asks for one, and the colour theme. */
import { useKey } from './api';
import { local, session, store, stored } from './storage';

const KEY = 'aiv.key';
const THEME = 'aiv.theme';
export type Theme = 'system' | 'light' | 'dark';

class Session {
  key = $state(stored(session, KEY) ?? stored(local, KEY) ?? '');
  /** The page asks for a key: the server refused ours, or the lack of one, or the person wants to change it. */
  keyWanted = $state(false);
  /** It was the server; then there is no way round it. */
  keyRefused = $state(false);
  theme = $state<Theme>(readTheme());

  constructor() {
    useKey(this.key);
  }

  /** Keeps the key for this tab, or with `remember` for this browser. */
  setKey(key: string, remember: boolean): void {
    store(session, KEY, remember ? null : key);
    store(local, KEY, remember ? key : null);
    this.key = key;
    useKey(key);
    this.keyWanted = false;
    this.keyRefused = false;
  }

  refuseKey(): void {
    this.keyWanted = true;
    this.keyRefused = true;
  }

  forgetKey(): void {
    store(session, KEY, null);
    store(local, KEY, null);
    this.key = '';
    useKey('');
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    store(local, THEME, theme === 'system' ? null : theme);
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }
}

function readTheme(): Theme {
  const theme = stored(local, THEME);
  return theme === 'light' || theme === 'dark' ? theme : 'system';
}

export const user = new Session();
