// Reads an event stream as it comes: raw, so that a test sees exactly what was sent and how the stream ended.

// Returns {events, ended}: `ended` is "complete" when the body came to its end, else the transport's error.
export async function readEvents(response, { until = () => false } = {}) {
  const events = [];
  let buffer = '';
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { events, ended: 'complete' };
      buffer += decoder.decode(value, { stream: true });
      for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
        const block = buffer.slice(0, end);
        buffer = buffer.slice(end + 2);
        const data = block.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart()).join('\n');
        if (data) events.push(data);
        if (until(data, events)) return { events, ended: 'stopped', reader };
      }
    }
  } catch (error) {
    return { events, ended: error.message };
  }
}

// Text of all deltas of a chat or completions stream.
export function textOf(events) {
  return events
    .filter((data) => data !== '[DONE]')
    .map((data) => JSON.parse(data))
    .map((event) => event.choices?.[0]?.delta?.content ?? event.choices?.[0]?.text ?? '')
    .join('');
}
