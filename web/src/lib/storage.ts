/** Web storage that may be switched off, full or forbidden: then a value simply lasts as long as the page. */
export function stored(storage: () => Storage, name: string): string | null {
  try {
    return storage().getItem(name);
  } catch {
    return null;
  }
}

export function store(storage: () => Storage, name: string, value: string | null): void {
  try {
    if (value === null) storage().removeItem(name);
    else storage().setItem(name, value);
  } catch {
    // Nothing to do: see above.
  }
}

export const local = () => localStorage;
export const session = () => sessionStorage;
