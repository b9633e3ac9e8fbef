// Waiting for conditions with a deadline: nothing here sleeps for a fixed time.

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Calls `condition` until it returns something truthy, and returns that. An exception counts as "not yet"; the last
// one is part of the message when the time is over.
export async function waitFor(what, condition, { timeoutMs = 10_000, everyMs = 20 } = {}) {
  const end = Date.now() + timeoutMs;
  let last;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      throw new Error(`not within ${timeoutMs} ms: ${what}${last ? ` (last: ${last.message})` : ''}`);
    }
    await sleep(everyMs);
  }
}

// Rejects with a message when `promise` takes longer.
export async function within(what, timeoutMs, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${timeoutMs} ms: ${what}`)), timeoutMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
